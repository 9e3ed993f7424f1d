"""Rows with a prompt, a chosen and a rejected answer, for the method dpo of `phi3 finetune`.

They become chats with the chosen answer, keep their columns, and pass the same checks as any chat.
"""

from __future__ import annotations

from typing import Any

from .checks import EMPTY, NO_MESSAGES, Problem

PREFERENCE_COLUMNS = ("prompt", "chosen", "rejected")
EQUAL_ANSWERS = "equal answers"  # reason for a rejection


def is_preference(columns: Any) -> bool:
    """Return whether columns, or the keys of a row, are those of preferences."""
    return "messages" not in columns and all(name in columns for name in PREFERENCE_COLUMNS)


def as_chat(row: Any) -> dict[str, Any] | Problem:
    """Return a preference with `messages` (its prompt and its chosen answer), or its problem.

    Args:
        row: row with `prompt`, `chosen` and `rejected`. The prompt is a text or a list of messages. The
            answers are texts, lists of one message, or lists of messages that begin with the prompt.
    """
    if not isinstance(row, dict) or not all(name in row for name in PREFERENCE_COLUMNS):
        return Problem(NO_MESSAGES, "no `prompt`, `chosen` and `rejected`")
    prompt = _messages(row["prompt"], "user")
    if prompt is None:
        return Problem(NO_MESSAGES, "`prompt` is not a text or a list of messages")
    answers = []
    for name in PREFERENCE_COLUMNS[1:]:
        answer = _messages(row[name], "assistant")
        if answer is not None and answer[: len(prompt)] == prompt:
            answer = answer[len(prompt) :]
        if answer is None or len(answer) != 1 or answer[0].get("role") != "assistant":
            return Problem(NO_MESSAGES, f"`{name}` is not one answer")
        content = answer[0].get("content")
        if not isinstance(content, str) or not content.strip():
            return Problem(EMPTY, f"`{name}` is empty")
        answers.append(answer)
    if answers[0][0]["content"].strip() == answers[1][0]["content"].strip():
        return Problem(EQUAL_ANSWERS, "`chosen` and `rejected` are equal")
    return {**row, "messages": [*prompt, *answers[0]]}


def _messages(value: Any, role: str) -> list[dict[str, Any]] | None:
    """Return a text as a list of one message, and a list of messages unchanged; otherwise None."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    is_list = isinstance(value, list) and all(isinstance(message, dict) for message in value)
    return value if is_list else None
