"""What a chat must be, what makes two of them the same, and how long one is.

Phi-3's chat template knows an optional system message, then user and assistant in turn; a row for
training ends with the assistant's answer. Source: the model card of Phi-3-mini-4k-instruct.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import OpsError

# Why a row is rejected: what the table and the manifest count by.
NOT_UTF8 = "not UTF-8"
NOT_JSON = "not JSON"
NOT_CSV = "not CSV"
NO_MESSAGES = "no messages"
ROLES = "roles out of order"
EMPTY = "empty content"
NO_ANSWER = "no answer at the end"
DUPLICATE = "duplicate"
TOO_LONG = "too long"

OVER_LONG = ("drop", "cut", "keep")
ESTIMATE = "estimated: 4 ASCII characters a token, any other character 1"

# What the template adds to a message (`<|user|>`, two line feeds, `<|end|>`), and to a chat.
MESSAGE_TOKENS = 4
CHAT_TOKENS = 1

_BETWEEN = "\n\0\n"  # two messages' contents: a line that no content has
_ROLES = ["user", "assistant"] * 1000

Message = dict[str, Any]


class Problem(NamedTuple):
    """Why a row is rejected: the reason that is counted, and what exactly is wrong."""

    reason: str
    detail: str


class Chat(NamedTuple):
    """A checked chat."""

    messages: list[Message]
    system: bool  # whether a system message stands in front
    text: str  # all contents, without the white space around each

    @property
    def prompt(self) -> str:
        """The first."""
        return str(self.messages[self.system]["content"])

    @property
    def answer(self) -> str:
        """To the first prompt."""
        return str(self.messages[self.system + 1]["content"])


Count = Callable[[Chat], int]


def check_chat(row: Any) -> Chat | Problem:
    """A row's chat, or what is wrong with it."""
    try:
        # Nearly every row is good: this takes a third of the time of looking at each message.
        messages = row["messages"]
        roles = [message["role"] for message in messages]
        contents = [message["content"].strip() for message in messages]
        system = roles[0] == "system"
        turns = roles[1:] if system else roles
        if turns == _ROLES[: len(turns)] and turns[-1] == "assistant" and all(contents):
            return Chat(messages, system, _BETWEEN.join(contents))
    except (AttributeError, IndexError, KeyError, TypeError):
        pass
    return _problem(row) or _chat(row["messages"])


def _chat(messages: list[Message]) -> Chat:
    text = _BETWEEN.join([message["content"].strip() for message in messages])
    return Chat(messages, messages[0]["role"] == "system", text)


def _problem(row: Any) -> Problem | None:
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        return Problem(NO_MESSAGES, "no `messages`" if isinstance(row, dict) else "no JSON object")
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    system = roles[0] == "system"
    for place, (role, message) in enumerate(zip(roles, messages)):
        wanted = "assistant" if (place - system) % 2 else "user"
        if role != wanted and not (system and place == 0):
            return Problem(ROLES, f"message {place + 1} has the role {role!r}, not {wanted!r}")
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            return Problem(EMPTY, f"message {place + 1} ({role}) is empty")
    if roles[-1] != "assistant":
        return Problem(NO_ANSWER, "the last message is not the assistant's")
    return None


def plain_text(text: str) -> str:
    """The same for texts that differ in the kind of line ends, or in Unicode's composed forms."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def chat_digest(chat: Chat) -> bytes:
    """16 bytes that are equal for chats that say the same; white space around messages is nothing."""
    return sha256(plain_text(chat.text).encode(), usedforsecurity=False).digest()[:16]


# -- length ------------------------------------------------------------------------------------------


def estimate_tokens(chat: Chat) -> int:
    """About how many tokens a chat takes."""
    text = chat.text
    characters = len(text) - len(_BETWEEN) * (len(chat.messages) - 1)
    if not text.isascii():
        characters += 3 * (len(text) - len(text.encode("ascii", "ignore")))
    return characters // 4 + MESSAGE_TOKENS * len(chat.messages) + CHAT_TOKENS


def token_counter(tokenizer: str) -> Count:
    """Counts a chat's tokens exactly, laid out as Phi-3's chat template does.

    Args:
        tokenizer: a folder with `tokenizer.json`, that file, or a model's id on the hub.

    Raises:
        OpsError: the package `tokenizers` is missing, or there is no such tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise OpsError("tokenizers is not installed", "pip install tokenizers") from error
    path = Path(tokenizer)
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        is_file = path.is_file()
        found = Tokenizer.from_file(str(path)) if is_file else Tokenizer.from_pretrained(tokenizer)
    except Exception as error:  # tokenizers raises bare Exceptions
        fix = "Give a folder with tokenizer.json, or a model's id on a hub that can be reached."
        raise OpsError(f"cannot read the tokenizer {tokenizer}", fix) from error

    def count(chat: Chat) -> int:
        texts = [f"<|{m['role']}|>\n{m['content']}<|end|>\n" for m in chat.messages]
        encoded = found.encode_batch(texts, add_special_tokens=False)
        return sum(len(text.ids) for text in encoded) + CHAT_TOKENS

    return count


def shorten_chat(chat: Chat, most: int, count: Count) -> Chat | None:
    """The chat without its last turns, so that it fits; None where not even the first turn does.

    Args:
        chat: one that is too long.
        most: tokens at most.
        count: tokens of a chat.
    """
    for end in range(len(chat.messages) - 2, chat.system + 1, -2):
        shorter = _chat(chat.messages[:end])
        if count(shorter) <= most:
            return shorter
    return None
