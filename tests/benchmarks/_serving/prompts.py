"""The prompts that all servers get. No two requests of a run have the same text.

The text is made from word lists by a seed, so that every server gets the same prompts, and no server
can reuse the keys and values of an earlier request beyond the shared system message.
"""

from __future__ import annotations

import itertools
import random

Messages = list[dict[str, str]]
SYSTEM = "You are a storyteller."
WHO = ("A baker", "A pilot", "The young queen", "A fisherman", "A robot", "A clever fox")
DID = ("found", "repaired", "lost", "painted", "sold", "carried", "forgot", "followed", "opened")
WHAT = ("a map", "a lamp", "an old bridge", "a silver key", "a letter", "a boat", "a clock")
WHERE = ("near the harbour", "in the market", "behind the mill", "at the lake", "in the snow")
# These numbers of sentences make prompts of about 1,000 tokens, and system messages of about 900.
LONG_SENTENCES, SHARED_SENTENCES = 100, 92
_numbers = itertools.count()


def short() -> Messages:
    """Return a conversation of about 40 tokens."""
    return [_message("system", SYSTEM), _message("user", f"{_request()} Write a long story.")]


def long() -> Messages:
    """Return a conversation of about 1,000 tokens."""
    request = _request()
    content = f"{request} {_sentences(request, LONG_SENTENCES)} Continue this story at length."
    return [_message("system", SYSTEM), _message("user", content)]


def shared() -> Messages:
    """Return a conversation whose system message, of about 900 tokens, is the same in each call."""
    system = f"{SYSTEM} {_sentences('shared', SHARED_SENTENCES)}"
    return [_message("system", system), _message("user", f"{_request()} Write a long story.")]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _request() -> str:
    number = next(_numbers)
    return f"Story {number}: {_sentences(str(number), 1)}"


def _sentences(seed: str, count: int) -> str:
    choose = random.Random(seed).choice
    texts = (f"{choose(WHO)} {choose(DID)} {choose(WHAT)} {choose(WHERE)}." for _ in range(count))
    return " ".join(texts)
