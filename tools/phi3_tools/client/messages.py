"""Messages: prompt flow's chat history, Phi-3's chat template, and fitting into a context window."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from ..errors import ConfigError, PromptTooLongError, well_formed
from .chat_template import read_chat_template

ROLES = ("system", "user", "assistant")

# Upper bounds of the tokens that Phi-3's chat template adds to each message (role marker, newline, end
# marker, newline) and after the last message (`<|assistant|>` and a newline).
MESSAGE_OVERHEAD = 5
PROMPT_OVERHEAD = 4
# The longest token of ordinary text in Phi-3's vocabulary has this many characters, so a text of n
# characters has at least n / 16 tokens.
LONGEST_TOKEN = 16
# `<|end|>`, `<s>` and similar tokens of a chat template, anywhere in a text.
_TEMPLATE_TOKEN = re.compile(r"<(?=\||/?s>|unk>)", re.IGNORECASE)


class Message(TypedDict):
    """One message of a chat: `role` is one of `ROLES`."""

    role: str
    content: str


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
        content = message.get("content")
        if not isinstance(content, str):
            kind = type(content).__name__
            raise ConfigError(f"message {number} ({role}): content is {kind}, not text")
        checked.append({"role": str(role), "content": content})
    if not checked:
        raise ConfigError("the list of messages is empty", hint="Give a question.")
    return checked


def from_chat_history(
    history: Iterable[Mapping[str, Any]] | None,
    *,
    input_key: str = "question",
    output_key: str = "answer",
) -> list[Message]:
    """Convert prompt flow's `chat_history` into messages.

    A history item is `{"inputs": {…}, "outputs": {…}, …}`; other keys, which the chat pages add, are
    ignored. A turn without an answer (it failed) is left out completely, so that roles alternate.
    If a turn lacks `input_key` or `output_key` but has exactly one text, that text is used, because a
    flow may give its chat input and output any name.

    Raises:
        ConfigError: an item does not have this form, or has several texts but not the key.
    """
    messages: list[Message] = []
    for number, turn in enumerate(history or [], 1):
        inputs = turn.get("inputs") if isinstance(turn, Mapping) else None
        outputs = (turn.get("outputs") or {}) if isinstance(turn, Mapping) else None
        if not isinstance(inputs, Mapping) or not isinstance(outputs, Mapping):
            raise ConfigError(f'chat_history item {number} is not {{"inputs": …, "outputs": …}}')
        question = _entry(inputs, input_key, f"chat_history item {number}: `inputs`")
        answer = _entry(outputs, output_key, f"chat_history item {number}: `outputs`")
        if question is None or answer is None:
            continue
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return messages


def to_chat_history(
    messages: Iterable[Message], *, input_key: str = "question", output_key: str = "answer"
) -> list[dict[str, dict[str, str]]]:
    """Convert messages into prompt flow's `chat_history`: answered user turns, no system messages."""
    history: list[dict[str, dict[str, str]]] = []
    question: str | None = None
    for message in messages:
        if message["role"] == "user":
            question = message["content"]
        elif message["role"] == "assistant" and question is not None:
            answer = message["content"]
            history.append({"inputs": {input_key: question}, "outputs": {output_key: answer}})
            question = None
    return history


def build_chat(
    question: str, chat_history: Any, messages: Any, system_prompt: str
) -> list[Message]:
    """Return the chat that a tool's inputs describe.

    Args:
        question: the last user message; may be empty if `messages` ends with one.
        chat_history: prompt flow's `chat_history`, or None.
        messages: messages between history and question, or None.
        system_prompt: the system message; may be empty.

    Raises:
        ConfigError: an input is not valid, or the chat does not end with a user message.
    """
    chat: list[Message] = from_chat_history(_as_list("chat_history", chat_history))
    further_messages = _as_list("messages", messages)
    chat += check_messages(further_messages) if further_messages else []
    if question:
        chat.append({"role": "user", "content": question})
    if not chat or chat[-1]["role"] != "user":
        hint = "Give the tool `question` or `messages`."
        raise ConfigError("the chat does not end with a question", hint=hint)
    if system_prompt:
        chat.insert(0, {"role": "system", "content": system_prompt})
    return chat


def _as_list(name: str, value: Any) -> list[Any]:
    if value in (None, ""):
        return []
    if not isinstance(value, list):
        raise ConfigError(f"`{name}` is {type(value).__name__}, but must be a list")
    return list(value)


def _entry(fields: Mapping[str, Any], key: str, where: str) -> str | None:
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    if key not in fields and len(texts) > 1:
        raise ConfigError(f"{where} has no `{key}`, but several texts: {', '.join(texts)}")
    value = fields.get(key) if key in fields else next(iter(texts.values()), None)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where} has a `{key}` that is {type(value).__name__}, not text")
    return value


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
        return PROMPT_OVERHEAD + sum(MESSAGE_OVERHEAD + count(m["content"]) for m in messages)


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
) -> list[Message]:
    """Return the chat without its oldest turns, so that it fits into the model's context window.

    Turns are left out as a whole. System messages and the last turn are always kept.

    Args:
        messages: the chat; its last user message is the question.
        context_window: tokens that prompt and answer share (4096 for Phi-3-mini-4k).
        max_new_tokens: tokens to keep free for the answer.
        counter: counts tokens; by default a safe estimate.

    Raises:
        PromptTooLongError: system messages and question alone do not fit. The estimate raises this only
            if they cannot fit with any tokenizer; in unclear cases the endpoint decides.
    """
    room = context_window - max_new_tokens
    system = [m for m in messages if m["role"] == "system"]
    turns = _turns([m for m in messages if m["role"] != "system"])
    recent = list(turns[-1]) if turns else []
    least = counter.least_of([*system, *recent])
    if least > room:
        raise PromptTooLongError(
            f"the question takes at least {least} tokens, but only {room} are free: the context window "
            f"has {context_window}, and {max_new_tokens} are kept for the answer"
        )

    def fits(first_turn: int) -> bool:
        kept = [message for turn in turns[first_turn:] for message in turn]
        return counter.most_of([*system, *kept]) <= room

    first_turn = bisect_left(range(len(turns) - 1), True, key=fits)
    return [*system, *(message for turn in turns[first_turn:] for message in turn)]


def _turns(messages: Iterable[Message]) -> list[list[Message]]:
    """Group messages into turns that begin with a user message, or with the chat's first message."""
    turns: list[list[Message]] = []
    for message in messages:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns
