"""Rows with preferences: a prompt with a chosen and a rejected answer, for `method: dpo`."""

from __future__ import annotations

from typing import Any

import tool_rows
from inputs import Row, TrainError, parse_chat

SIDES = ("chosen", "rejected")
ROW_FIX = 'a row is {"prompt": "…", "chosen": "…", "rejected": "…"}; `phi3 data` checks all rows'


def parse_preference(row: Any, location: str, tool_format: str = tool_rows.GENERIC) -> Row:
    """Return a checked row with `prompt`, `chosen` and `rejected` as lists of messages.

    Args:
        row: parsed line. The prompt is a text or a list of messages. The answers are texts, lists of one
            message, or lists of messages that begin with the prompt.
        location: file and line, for errors.
        tool_format: format in which tools, calls and results are written into the messages.

    Raises:
        TrainError: the row is not a preference, or both answers are equal.
    """
    if not isinstance(row, dict) or not {"prompt", *SIDES} <= row.keys():
        raise TrainError("the row has no prompt, chosen and rejected", location, ROW_FIX)
    prompt = row["prompt"]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    chats = []
    for side in SIDES:
        answer = row[side]
        if isinstance(answer, str):
            answer = [{"role": "assistant", "content": answer}]
        if not isinstance(prompt, list) or not isinstance(answer, list):
            raise TrainError(f"the row's prompt or {side} is not a text", location, ROW_FIX)
        answer = answer[len(prompt) :] if answer[: len(prompt)] == prompt else answer
        if len(answer) != 1:
            raise TrainError(f"the row's {side} is not one message", location, ROW_FIX)
        chat = {"messages": [*prompt, *answer], "tools": row.get("tools")}
        chats.append(parse_chat(chat, f"{location}, {side}", tool_format)["messages"])
    chosen, rejected = (chat[-1:] for chat in chats)
    if chosen[0]["content"].strip() == rejected[0]["content"].strip():
        raise TrainError("the row's chosen and rejected are equal", location, "remove the row")
    return {"prompt": chats[0][:-1], "chosen": chosen, "rejected": rejected}


def as_chat(row: Row) -> Row:
    """Return a row as a conversation: a preference with its chosen answer, another row unchanged."""
    return row if "messages" in row else {"messages": [*row["prompt"], *row["chosen"]]}
