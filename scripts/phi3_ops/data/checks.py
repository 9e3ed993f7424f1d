"""Check a chat, compute its digest for finding duplicates, and count its tokens.

Phi-3's chat template has an optional system message, then user and assistant messages in turn. A row for
training ends with an assistant message. Source: the model card of Phi-3-mini-4k-instruct. If an assistant
message calls tools, their results follow it, see `tool_checks`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ..errors import OpsError
from .tool_checks import find_tool_problem

# Reasons for a rejection, as the table and the manifest name them.
NOT_UTF8 = "not UTF-8"
NOT_JSON = "not JSON"
NOT_CSV = "not CSV"
NO_MESSAGES = "no messages"
ROLES = "roles out of order"
EMPTY = "empty content"
CONTROL = "control characters"
NO_ANSWER = "no answer at the end"
DUPLICATE = "duplicate"
TOO_LONG = "too long"

OVER_LONG = ("drop", "cut", "keep")
ESTIMATE = "estimated: 4 ASCII characters per token, 1 token for any other character"

# Tokens that the template adds to a message (`<|user|>`, two line feeds, `<|end|>`) and to a chat.
MESSAGE_TOKENS = 4
CHAT_TOKENS = 1

_SEPARATOR = "\n\0\n"  # between the contents of two messages; no content has this line
# Characters that no text needs: they come from damaged files and the output of terminals.
_CONTROLS = bytes(code for code in (*range(1, 32), 127) if chr(code) not in "\t\n\f\r")
_CONTROL = re.compile(r"[\0-\x08\x0b\x0e-\x1f\x7f]")
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
        text: contents of all messages, without white space around each of them; with tools, also their
            definitions and calls as JSON.
        with_tools: whether the row has tools.
    """

    messages: list[Message]
    system: bool
    text: str
    with_tools: bool = False

    @property
    def prompt(self) -> str:
        """The first prompt."""
        return str(self.messages[self.system]["content"])

    @property
    def answer(self) -> str:
        """The answer to the first prompt: its text, or its calls as JSON."""
        return _text_of(self.messages[self.system + 1])

    @property
    def turns(self) -> int:
        """Number of prompts."""
        if not self.with_tools:
            return len(self.messages) // 2
        return sum(message["role"] == "user" for message in self.messages)


CountTokens = Callable[[Chat], int]


def check_chat(row: Any) -> Chat | Problem:
    """Return the chat of a row, or the problem that rejects the row."""
    try:
        # Most rows are good, and this check takes a third of the time of a check message by message.
        messages = row["messages"]
        if row.get("tools") or row.get("response_format"):
            raise KeyError  # the slower checks
        roles = [message["role"] for message in messages]
        contents = [message["content"].strip() for message in messages]
        system = roles[0] == "system"
        turns = roles[1:] if system else roles
        is_plain = not any(message.get("tool_calls") for message in messages)
        if (
            turns == _ROLES[: len(turns)]
            and turns[-1] == "assistant"
            and all(contents)
            and is_plain
            and not _has_controls(text := _SEPARATOR.join(contents), len(contents) - 1)
        ):
            return Chat(messages, system, text)
    except (AttributeError, IndexError, KeyError, TypeError):
        pass
    return _problem(row) or _chat(row["messages"], row.get("tools"))


def _has_controls(text: str, separators: int) -> bool:
    """Return whether a text contains a control character, besides those of its separators."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw.translate(None, _CONTROLS)) < len(raw) or raw.count(0) > separators


def _chat(messages: list[Message], tools: Any = None) -> Chat:
    texts = [_text_of(message) for message in messages]
    if tools:
        texts.append(tools if isinstance(tools, str) else orjson.dumps(tools).decode())
    system = messages[0]["role"] == "system"
    return Chat(messages, system, _SEPARATOR.join(texts), bool(tools))


def _text_of(message: Message) -> str:
    """Return the content of a message, and its calls as JSON."""
    text = (message.get("content") or "").strip()
    if calls := message.get("tool_calls"):
        functions = orjson.dumps([call["function"] for call in calls]).decode()
        return f"{text}\n{functions}" if text else functions
    return text


def _problem(row: Any) -> Problem | None:
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        is_object = isinstance(row, dict)
        return Problem(NO_MESSAGES, "no `messages`" if is_object else "not a JSON object")
    for number, message in enumerate(messages):
        if problem := _message_problem(
            message, messages[number - 1] if number else None, number + 1
        ):
            return problem
    if tool_problem := find_tool_problem(row):
        return Problem(*tool_problem)
    if messages[-1]["role"] != "assistant":
        return Problem(NO_ANSWER, "the last message is not the assistant's")
    return None


def _message_problem(message: Any, previous: Message | None, number: int) -> Problem | None:
    role = message.get("role") if isinstance(message, dict) else None
    expected = _expected_role(role, previous)
    if role != expected:
        return Problem(ROLES, f"message {number} has the role {role!r}, not {expected!r}")
    content, calls = message.get("content"), message.get("tool_calls")
    if content is None and calls:
        return None
    is_text = isinstance(content, str)
    if not is_text or not (content.strip() or calls or role == "tool"):
        return Problem(EMPTY, f"message {number} ({role}) is empty")
    if match := _CONTROL.search(content):
        character = f"the control character U+{ord(match[0]):04X}"
        return Problem(CONTROL, f"message {number} ({role}) contains {character}")
    return None


def _expected_role(role: Any, previous: Message | None) -> str:
    """Return the role of a message after another one; a system message may be the first."""
    if previous is None:
        return "system" if role == "system" else "user"
    if previous["role"] == "assistant":
        return "tool" if previous.get("tool_calls") else "user"
    if previous["role"] == "tool":
        return "tool" if role == "tool" else "assistant"
    return "assistant" if previous["role"] == "user" else "user"


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
        # The definitions of tools follow the messages in the text; they belong to the system message.
        contents = chat.text.split(_SEPARATOR)[len(chat.messages) :] if chat.with_tools else []
        turns = [
            f"<|{m['role']}|>\n{_text_of(m) if m.get('tool_calls') else m['content']}<|end|>\n"
            for m in chat.messages
        ]
        texts = [*contents, *turns]
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
    tools = chat.text.split(_SEPARATOR)[-1] if chat.with_tools else None
    for end in range(len(chat.messages) - 1, chat.system + 1, -1):
        last = chat.messages[end - 1]
        if last["role"] != "assistant" or last.get("tool_calls"):
            continue
        shorter = _chat(chat.messages[:end], tools)
        if count(shorter) <= most:
            return shorter
    return None
