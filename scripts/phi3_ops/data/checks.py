"""Check a chat, compute its digest for finding duplicates, and count its tokens.

Phi-3's chat template has an optional system message, then user and assistant messages in turn. A row for
training ends with an assistant message. Source: the model card of Phi-3-mini-4k-instruct.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import OpsError

# Reasons for a rejection, as the table and the manifest name them.
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
ESTIMATE = "estimated: 4 ASCII characters per token, 1 token for any other character"

# Tokens that the template adds to a message (`<|user|>`, two line feeds, `<|end|>`) and to a chat.
MESSAGE_TOKENS = 4
CHAT_TOKENS = 1

_SEPARATOR = "\n\0\n"  # between the contents of two messages; no content has this line
_ROLES = ["user", "assistant"] * 1000

Message = dict[str, Any]


class Problem(NamedTuple):
    """A problem that rejects a row: its reason, which is counted, and a description."""

    reason: str
    detail: str


class Chat(NamedTuple):
    """A chat that passed the checks.

    Attributes:
        messages: the messages.
        system: whether the first message is a system message.
        text: contents of all messages, without white space around each of them.
    """

    messages: list[Message]
    system: bool
    text: str

    @property
    def prompt(self) -> str:
        """The first prompt."""
        return str(self.messages[self.system]["content"])

    @property
    def answer(self) -> str:
        """The answer to the first prompt."""
        return str(self.messages[self.system + 1]["content"])


CountTokens = Callable[[Chat], int]


def check_chat(row: Any) -> Chat | Problem:
    """Return the chat of a row, or the problem that rejects the row."""
    try:
        # Most rows are good, and this check takes a third of the time of a check message by message.
        messages = row["messages"]
        roles = [message["role"] for message in messages]
        contents = [message["content"].strip() for message in messages]
        system = roles[0] == "system"
        turns = roles[1:] if system else roles
        if turns == _ROLES[: len(turns)] and turns[-1] == "assistant" and all(contents):
            return Chat(messages, system, _SEPARATOR.join(contents))
    except (AttributeError, IndexError, KeyError, TypeError):
        pass
    return _problem(row) or _chat(row["messages"])


def _chat(messages: list[Message]) -> Chat:
    text = _SEPARATOR.join([message["content"].strip() for message in messages])
    return Chat(messages, messages[0]["role"] == "system", text)


def _problem(row: Any) -> Problem | None:
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        is_object = isinstance(row, dict)
        return Problem(NO_MESSAGES, "no `messages`" if is_object else "not a JSON object")
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    system = roles[0] == "system"
    for number, (role, message) in enumerate(zip(roles, messages), 1):
        expected = "user" if (number - system) % 2 else "assistant"
        if role != expected and not (system and number == 1):
            return Problem(ROLES, f"message {number} has the role {role!r}, not {expected!r}")
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            return Problem(EMPTY, f"message {number} ({role}) is empty")
    if roles[-1] != "assistant":
        return Problem(NO_ANSWER, "the last message is not the assistant's")
    return None


def normalise_text(text: str) -> str:
    """Return a text with line feeds as line ends and with composed Unicode characters (NFC)."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def chat_digest(chat: Chat) -> bytes:
    """Return 16 bytes that are equal for chats with equal text, except white space around messages."""
    return sha256(normalise_text(chat.text).encode(), usedforsecurity=False).digest()[:16]


# -- length ------------------------------------------------------------------------------------------


def estimate_tokens(chat: Chat) -> int:
    """Return an estimate of the number of tokens of a chat."""
    text = chat.text
    characters = len(text) - len(_SEPARATOR) * (len(chat.messages) - 1)
    if not text.isascii():
        characters += 3 * (len(text) - len(text.encode("ascii", "ignore")))
    return characters // 4 + MESSAGE_TOKENS * len(chat.messages) + CHAT_TOKENS


def token_counter(tokenizer: str) -> CountTokens:
    """Return a function that counts the tokens of a chat exactly, in the form of Phi-3's chat template.

    Args:
        tokenizer: a folder with `tokenizer.json`, that file, or the id of a model on the hub.

    Raises:
        OpsError: the package `tokenizers` is missing, or the tokenizer cannot be read.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise OpsError("tokenizers is not installed", "pip install tokenizers") from error
    path = Path(tokenizer)
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        is_file = path.is_file()
        loaded = Tokenizer.from_file(str(path)) if is_file else Tokenizer.from_pretrained(tokenizer)
    except Exception as error:  # tokenizers raises plain Exceptions
        fix = (
            "Give a folder with tokenizer.json, or the id of a model on a hub that can be reached."
        )
        raise OpsError(f"cannot read the tokenizer {tokenizer}", fix) from error

    def count(chat: Chat) -> int:
        texts = [f"<|{m['role']}|>\n{m['content']}<|end|>\n" for m in chat.messages]
        encoded = loaded.encode_batch(texts, add_special_tokens=False)
        return sum(len(text.ids) for text in encoded) + CHAT_TOKENS

    return count


def shorten_chat(chat: Chat, most: int, count: CountTokens) -> Chat | None:
    """Return the chat without as many last turns as necessary; None if the first turn is too long.

    Args:
        chat: a chat that is too long.
        most: maximum number of tokens.
        count: function that returns the number of tokens of a chat.
    """
    for end in range(len(chat.messages) - 2, chat.system + 1, -2):
        shorter = _chat(chat.messages[:end])
        if count(shorter) <= most:
            return shorter
    return None
