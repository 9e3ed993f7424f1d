"""Messages: their checks, Phi-3's chat template, and fitting into a context window."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from ..errors import ConfigError, PromptTooLongError, well_formed
from .chat_template import read_chat_template
from .tool_calls import ToolCall, call_text, read_message_calls

ROLES = ("system", "user", "assistant", "tool")

# Upper bounds of the tokens that Phi-3's chat template adds to each message (role marker, newline, end
# marker, newline) and after the last message (`<|assistant|>` and a newline).
MESSAGE_OVERHEAD = 5
PROMPT_OVERHEAD = 4
# The longest token of ordinary text in Phi-3's vocabulary has this many characters, so a text of n
# characters has at least n / 16 tokens.
LONGEST_TOKEN = 16
# `<|end|>`, `<s>` and similar tokens of a chat template, anywhere in a text.
_TEMPLATE_TOKEN = re.compile(r"<(?=\||/?s>|unk>)", re.IGNORECASE)


class _TextMessage(TypedDict):
    role: str
    content: str


class Message(_TextMessage, total=False):
    """One message of a chat: `role` is one of `ROLES`.

    A message of the assistant may have `tool_calls`, a list of `ToolCall` or of items of OpenAI's
    `tool_calls`. Each call is followed by a message of the role `tool` with its `tool_call_id`.
    """

    tool_calls: list[Any]
    tool_call_id: str


@dataclass(frozen=True)
class Usage:
    """Tokens of a call; `counted` is true if the client counted them, not the endpoint."""

    prompt_tokens: int
    completion_tokens: int
    counted: bool = False

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def as_dict(self) -> dict[str, int]:
        """Return the three counts under OpenAI's names."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }


@dataclass(frozen=True)
class Reply:
    """An answer, and how it was obtained.

    Attributes:
        text: the model's answer.
        usage: tokens; None if the endpoint does not report them and there is no tokenizer file.
        finish_reason: `stop`, `length`, …, or None if the endpoint does not report it.
        model: name of the model, as the endpoint reports it.
        contract: name of the contract that was used.
        request_id: the endpoint's id of the request.
        latency_s: seconds from the start of the first attempt to the last byte.
        attempts: number of requests that were sent.
        raw: the parsed JSON of the answer; None for a stream.
        parsed: the answer's value, if `Params.response_format` was set: JSON data, or an object of the
            class of pydantic. None if the model calls tools instead.
        tool_calls: calls of tools that the model asks for.
        schema_in: how the schema or the tools were sent: `request` if the endpoint's contract has fields
            for them, `prompt` if they were written into the system message, None if there were none.
        repairs: 1 if the first answer did not fit and the model was asked again, otherwise 0. `usage`
            and `attempts` then include both answers.
    """

    text: str
    usage: Usage | None = None
    finish_reason: str | None = None
    model: str | None = None
    contract: str = ""
    request_id: str | None = None
    latency_s: float = 0.0
    attempts: int = 1
    raw: Any = field(default=None, repr=False, compare=False)
    parsed: Any = None
    tool_calls: tuple[ToolCall, ...] = ()
    schema_in: str | None = None
    repairs: int = 0

    @property
    def message(self) -> Message:
        """The answer as a message of the assistant, to be added to the chat."""
        message: Message = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            message["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        return message


def check_messages(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Return the messages without extra keys, after a check of roles and contents.

    Raises:
        ConfigError: a message has an unknown role or no text, or there are no messages; the error
            contains the number of the message, counted from 1.
    """
    if not isinstance(messages, Iterable):
        kind = type(messages).__name__
        raise ConfigError(f"the question is {kind}, not a text or a list of messages")
    checked: list[Message] = []
    for number, message in enumerate(messages, 1):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise ConfigError(f"message {number}: role is {role!r}, not one of {', '.join(ROLES)}")
        checked.append(_checked_message(message, str(role), f"message {number} ({role})"))
    if not checked:
        raise ConfigError("the list of messages is empty", hint="Give a question.")
    _check_results(checked)
    return checked


def _checked_message(message: Mapping[str, Any], role: str, where: str) -> Message:
    calls = message.get("tool_calls") if role == "assistant" else None
    content = message.get("content")
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise ConfigError(f"{where}: content is {type(content).__name__}, not text")
    checked: Message = {"role": role, "content": content}
    if calls:
        checked["tool_calls"] = read_message_calls(calls, where)
    if role == "tool":
        call_id = message.get("tool_call_id")
        if not isinstance(call_id, str) or not call_id:
            raise ConfigError(f"{where}: tool_call_id is missing")
        checked["tool_call_id"] = call_id
    return checked


def _check_results(messages: Sequence[Message]) -> None:
    """Check that each call is followed by exactly one result, and each result belongs to a call.

    Raises:
        ConfigError: a result is missing or does not belong to a call.
    """
    open_calls: list[str] = []
    for number, message in enumerate(messages, 1):
        if message["role"] == "tool":
            call_id = message["tool_call_id"]
            if call_id not in open_calls:
                reason = f"tool_call_id {call_id[:80]!r} is not a call of the message before"
                raise ConfigError(f"message {number} (tool): {reason}")
            open_calls.remove(call_id)
            continue
        if open_calls:
            break
        open_calls = [call["id"] for call in message.get("tool_calls", [])]
    if open_calls:
        raise ConfigError(
            f"the tool call {open_calls[0][:80]!r} has no result",
            hint="Add a message with the role `tool` and this `tool_call_id` after the call.",
        )


def render(messages: Iterable[Message]) -> str:
    """Return the messages in Phi-3's chat template, up to the start of the assistant's answer.

    Endpoints with the MLflow contract take such a text. Control tokens in contents are broken up, because
    a content must not end its turn or begin another one.
    Contract: "Phi-3-mini-4k-instruct" model card, section "Chat Format".
    """
    turns = (f"<|{m['role']}|>\n{break_template_tokens(m['content'])}<|end|>\n" for m in messages)
    return f"{''.join(turns)}<|assistant|>\n"


def break_template_tokens(text: str) -> str:
    """Return the text with a blank inside each token of a chat template, which makes it plain text."""
    return _TEMPLATE_TOKEN.sub("< ", text)


def open_with_user(messages: Iterable[Message]) -> list[Message]:
    """Return the chat with a user turn first, for templates that begin with one.

    Opening system messages become the beginning of that turn, separated by blank lines. A chat that opens
    with an assistant message gets an empty user turn.
    """
    rest, texts = list(messages), []
    while rest and rest[0]["role"] == "system":
        texts.append(rest.pop(0)["content"])
    if rest and rest[0]["role"] == "user":
        texts.append(rest.pop(0)["content"])
    return [{"role": "user", "content": "\n\n".join(texts)}, *rest]


@dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of texts and chats.

    Attributes:
        most: function that returns an upper bound of a text's tokens.
        least: function that returns a lower bound of a text's tokens.
        exact: function that returns the tokens of a chat in the model's own chat template, or None if it
            cannot be rendered.
    """

    most: Callable[[str], int]
    least: Callable[[str], int]
    exact: Callable[[Sequence[Message]], int | None] = lambda messages: None

    def most_of(self, messages: Sequence[Message]) -> int:
        """Return the tokens of a chat; an upper bound if it cannot be rendered."""
        return self._count(messages, self.most)

    def least_of(self, messages: Sequence[Message]) -> int:
        """Return the tokens of a chat; the lower bounds of its texts if it cannot be rendered."""
        return self._count(messages, self.least)

    def _count(self, messages: Sequence[Message], count: Callable[[str], int]) -> int:
        exact = self.exact(messages)
        if exact is not None:
            return exact
        return PROMPT_OVERHEAD + sum(MESSAGE_OVERHEAD + count(_full_text(m)) for m in messages)


def _full_text(message: Message) -> str:
    """Return the content of a message and its tool calls."""
    return "".join([message["content"], *map(call_text, message.get("tool_calls", []))])


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# Byte-level fallback takes at most one token per byte, plus one for the blank that SentencePiece adds in
# front. This holds for every Phi-3 tokenizer. English has about four bytes per token, so a tokenizer file
# is needed to use the complete window.
ESTIMATE = TokenCounter(
    most=lambda text: _bytes(break_template_tokens(text)) + 1,
    least=lambda text: -(-len(text) // LONGEST_TOKEN),
)


def tokenizer_counter(path: str) -> TokenCounter:
    """Return an exact counter from a model's `tokenizer.json` (needs the package `tokenizers`).

    Chats are counted exactly if the model's chat template is in the same folder and the package `jinja2`
    is installed. Otherwise only their texts are, and an upper bound is added for Phi-3's template.

    Raises:
        ConfigError: the package or the file is missing, or the file is not a tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            "the connection has a `tokenizer`, but the package `tokenizers` is not installed",
            hint="pip install tokenizers, or remove `tokenizer`.",
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for every kind of bad file
        raise ConfigError(f"cannot read the tokenizer file {path}: {error}") from error

    render_template = read_chat_template(Path(path).parent)

    def plain(text: str) -> str:
        # The library does not accept half a surrogate pair; a model gets U+FFFD for it. Control tokens in
        # a message are text: an endpoint encodes them as text, or they are broken up.
        return break_template_tokens(well_formed(text))

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    def count_chat(messages: Sequence[Message]) -> int | None:
        if render_template is None:
            return None
        try:
            return count(render_template([{**m, "content": plain(m["content"])} for m in messages]))
        except Exception:  # a template is a program, and may refuse a chat
            return None

    def count_text(text: str) -> int:
        return count(plain(text))

    return TokenCounter(most=count_text, least=count_text, exact=count_chat)


def fit(
    messages: Sequence[Message],
    *,
    context_window: int,
    max_new_tokens: int,
    counter: TokenCounter = ESTIMATE,
    added_text: str = "",
    last_turns: int = 1,
) -> list[Message]:
    """Return the chat without its oldest turns, so that it fits into the model's context window.

    Turns are left out as a whole. System messages and the last turn are always kept. If the last turn
    alone is too long and contains tool calls, its oldest calls are left out, each with its results; the
    question and the last call are kept.

    Args:
        messages: the chat; its last user message is the question.
        context_window: tokens that prompt and answer share (4096 for Phi-3-mini-4k).
        max_new_tokens: tokens to keep free for the answer.
        counter: counts tokens; by default a safe estimate.
        added_text: text that is added to the prompt, such as the definitions of tools.
        last_turns: number of turns that count as the last one.

    Raises:
        PromptTooLongError: system messages and question alone do not fit. The estimate raises this only
            if they cannot fit with any tokenizer; in unclear cases the endpoint decides.
    """
    room = context_window - max_new_tokens
    system = [m for m in messages if m["role"] == "system"]
    turns = _groups([m for m in messages if m["role"] != "system"], _begins_turn)
    split = max(0, len(turns) - last_turns)
    recent = _groups([message for turn in turns[split:] for message in turn], _calls_tools)
    question, steps = recent[:1], recent[1:]
    least = counter.least_of([*system, *_joined([*question, *steps[-1:]])])
    least += counter.least(added_text) if added_text else 0
    if least > room:
        raise PromptTooLongError(
            f"the question takes at least {least} tokens, but only {room} are free: the context window "
            f"has {context_window}, and {max_new_tokens} are kept for the answer"
        )
    added = counter.most(added_text) if added_text else 0

    def without_oldest(left_out: int) -> list[Message]:
        steps_left_out = max(0, left_out - split)
        return [*system, *_joined([*turns[left_out:split], *question, *steps[steps_left_out:]])]

    def fits(left_out: int) -> bool:
        return counter.most_of(without_oldest(left_out)) + added <= room

    most_left_out = split + max(0, len(steps) - 1)
    # A binary search; `bisect_left` has no `key` in Python 3.9.
    low, high = 0, most_left_out
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return without_oldest(low)


def _groups(
    messages: Iterable[Message], begins_group: Callable[[Message], bool]
) -> list[list[Message]]:
    """Group messages; a group begins with the first message and where the function says so."""
    groups: list[list[Message]] = []
    for message in messages:
        if begins_group(message) or not groups:
            groups.append([])
        groups[-1].append(message)
    return groups


def _begins_turn(message: Message) -> bool:
    return message["role"] == "user"


def _calls_tools(message: Message) -> bool:
    return bool(message.get("tool_calls"))


def _joined(groups: Iterable[Iterable[Message]]) -> list[Message]:
    return [message for group in groups for message in group]
