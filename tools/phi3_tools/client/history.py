"""Prompt flow's chat history and a tool's inputs as messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError
from .messages import Message, check_messages


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
        elif (
            message["role"] == "assistant"
            and question is not None
            and not message.get("tool_calls")
        ):
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
        ConfigError: an input is not valid, or the chat ends with neither a user message nor a tool's
            result.
    """
    chat: list[Message] = from_chat_history(_as_list("chat_history", chat_history))
    further_messages = _as_list("messages", messages)
    chat += check_messages(further_messages) if further_messages else []
    if question:
        chat.append({"role": "user", "content": question})
    if not chat or chat[-1]["role"] not in ("user", "tool"):
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
