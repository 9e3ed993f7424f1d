"""What is said: messages, prompt flow's chat history, Phi-3's chat template, a context window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from ..errors import ConfigError, PromptTooLongError

ROLES = ("system", "user", "assistant")

# Tokens that Phi-3's chat template puts around a message (role marker, newline, end marker, newline)
# and after the last one (`<|assistant|>` and a newline).
MESSAGE_OVERHEAD = 5
PROMPT_OVERHEAD = 4
# No token of Phi-3's vocabulary that stands for ordinary text is longer than this many characters, so
# a text of n characters has at least n / 16 tokens.
LONGEST_TOKEN = 16


class Message(TypedDict):
    """One message of a chat: `role` is one of `ROLES`."""

    role: str
    content: str


@dataclass(frozen=True)
class Usage:
    """Tokens that a call took; `counted` is false where the endpoint's own figures are used."""

    prompt_tokens: int
    completion_tokens: int
    counted: bool = False

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def as_dict(self) -> dict[str, int]:
        """The three counts under OpenAI's names."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }


@dataclass(frozen=True)
class Reply:
    """An answer and what is known about how it came.

    Attributes:
        text: what the model said.
        usage: tokens; None where the endpoint does not tell and no tokenizer was given.
        finish_reason: `stop`, `length`, … or None where the endpoint does not tell.
        model: the model's name as the endpoint gives it.
        contract: the wire format that was spoken.
        request_id: the endpoint's id of the request.
        latency_s: seconds from the first attempt's start to the last byte.
        attempts: how often the request was sent.
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
    """Messages with known roles and text contents, extra keys dropped.

    Raises:
        ConfigError: naming the message (counted from 1) and what is wrong with it.
    """
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
        raise ConfigError("there is no message to send", hint="Give a question.")
    return checked


def from_chat_history(
    history: Iterable[Mapping[str, Any]] | None,
    *,
    input_key: str = "question",
    output_key: str = "answer",
) -> list[Message]:
    """Prompt flow's `chat_history` as messages.

    A history item is `{"inputs": {…}, "outputs": {…}, …}`; other keys, which the chat pages add, are
    ignored. A turn whose answer is missing (it failed) is left out whole, so that roles alternate.
    Where a turn lacks `input_key` or `output_key` but has exactly one text, that text is taken: a
    flow may name its chat input and output as it likes.

    Raises:
        ConfigError: an item is not of that form, or it is open which of its texts was said.
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
    """Messages as prompt flow's `chat_history`: the answered user turns, system messages left out."""
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


def _entry(fields: Mapping[str, Any], key: str, where: str) -> str | None:
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    if key not in fields and len(texts) > 1:
        raise ConfigError(f"{where} has no `{key}`, but several texts: {', '.join(texts)}")
    value = fields.get(key) if key in fields else next(iter(texts.values()), None)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where} has a `{key}` that is {type(value).__name__}, not text")
    return value


def render(messages: Iterable[Message]) -> str:
    """Messages in Phi-3's chat template, up to the point where the assistant speaks.

    For endpoints that take a bare text (the MLflow contract). Contents are put in as they are.
    Contract: "Phi-3-mini-4k-instruct" model card, section "Chat Format".
    """
    turns = "".join(f"<|{m['role']}|>\n{m['content']}<|end|>\n" for m in messages)
    return f"{turns}<|assistant|>\n"


def open_with_user(messages: Iterable[Message]) -> list[Message]:
    """The chat with a user's turn first, for templates that begin with one: the opening system texts
    stand in front of its text, a blank line between; an empty turn is put before an assistant's."""
    rest, texts = list(messages), []
    while rest and rest[0]["role"] == "system":
        texts.append(rest.pop(0)["content"])
    if rest and rest[0]["role"] == "user":
        texts.append(rest.pop(0)["content"])
    return [{"role": "user", "content": "\n\n".join(texts)}, *rest]


@dataclass(frozen=True)
class TokenCounter:
    """Counts a text's tokens: `most` never under-counts, `least` never over-counts."""

    most: Callable[[str], int]
    least: Callable[[str], int]


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# Byte-level fallback spends at most one token a byte, plus one for the blank that SentencePiece puts
# in front: so this holds for every Phi-3 tokenizer. English has about four bytes a token, so give a
# tokenizer file where the whole window matters.
ESTIMATE = TokenCounter(
    most=lambda text: _bytes(text) + 1,
    least=lambda text: -(-len(text) // LONGEST_TOKEN),
)


def tokenizer_counter(path: str) -> TokenCounter:
    """An exact counter from a model's `tokenizer.json` (needs the package `tokenizers`).

    Raises:
        ConfigError: the package or the file is missing, or the file is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            "a tokenizer file was given, but the package `tokenizers` is not installed",
            hint="pip install tokenizers, or leave the file out.",
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for every kind of bad file
        raise ConfigError(f"cannot read the tokenizer file {path}: {error}") from error

    def count(text: str) -> int:
        # Half a surrogate pair, which the library cannot take, reaches a model as U+FFFD.
        valid = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return len(tokenizer.encode(valid, add_special_tokens=False).ids)

    return TokenCounter(most=count, least=count)


def count_prompt(messages: Iterable[Message], count: Callable[[str], int]) -> int:
    """Tokens of a chat put through Phi-3's template."""
    return PROMPT_OVERHEAD + sum(MESSAGE_OVERHEAD + count(m["content"]) for m in messages)


def fit(
    messages: Sequence[Message],
    *,
    context_window: int,
    max_new_tokens: int,
    counter: TokenCounter = ESTIMATE,
) -> list[Message]:
    """The chat cut to the model's context window: whole turns, newest kept, system messages kept.

    Args:
        messages: the chat; its last user message is the question and is always kept.
        context_window: tokens that prompt and answer share (4096 for Phi-3-mini-4k).
        max_new_tokens: tokens kept free for the answer.
        counter: counts tokens; without a tokenizer file a safe estimate.

    Raises:
        PromptTooLongError: system messages and question alone cannot fit. With the estimate this is
            raised only where no tokenizer could make them fit; in between the endpoint decides.
    """
    room = context_window - max_new_tokens
    system = [m for m in messages if m["role"] == "system"]
    turns = _turns([m for m in messages if m["role"] != "system"])
    kept = list(turns[-1]) if turns else []
    least = count_prompt([*system, *kept], counter.least)
    if least > room:
        raise PromptTooLongError(
            f"the question takes at least {least} tokens, and {context_window} of context less "
            f"{max_new_tokens} for the answer leave {room}"
        )
    used = count_prompt([*system, *kept], counter.most)
    for turn in reversed(turns[:-1]):
        used += sum(MESSAGE_OVERHEAD + counter.most(m["content"]) for m in turn)
        if used > room:
            break
        kept = [*turn, *kept]
    return [*system, *kept]


def _turns(messages: Iterable[Message]) -> list[list[Message]]:
    """Groups that begin with a user message each (an opening assistant message stands alone)."""
    turns: list[list[Message]] = []
    for message in messages:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns
