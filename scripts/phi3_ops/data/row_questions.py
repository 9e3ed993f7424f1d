"""The questions in the rows of any data file that `phi3 data` or a batch reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import read_jsonl
from .near_duplicates import KnownTexts
from .sources import open_source

# Names of the column of the question in the data of a batch; the first one that a row has is taken.
QUESTION_COLUMNS = ("question", "prompt", "instruction", "query", "input_data", "input")
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


def questions_of_row(row: Mapping[str, Any]) -> list[str]:
    """Return the questions of a row: those of all turns of `messages`, or the text of a column.

    The list is empty if the row has neither.
    """
    messages = _messages_or_text(row)
    if isinstance(messages, str):
        return [messages]
    if not isinstance(messages, list):
        return []
    return [message["content"] for message in messages if _is_question(message)]


def history_of_row(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return role and content of the messages before the last question of a row.

    They come from a chat in `messages` or in a column of the question, else from prompt flow's
    `chat_history`. The history is empty if `chat_history` has another form.
    """
    from phi3_tools import ConfigError  # here, because `phi3 data --help` imports this module
    from phi3_tools.client import from_chat_history

    if isinstance(messages := _messages_or_text(row), list):
        last = max((n for n, message in enumerate(messages) if _is_question(message)), default=0)
        earlier = (message for message in messages[:last] if isinstance(message, Mapping))
        return tuple((str(each.get("role")), str(each.get("content") or "")) for each in earlier)
    try:
        history = from_chat_history(row.get("chat_history") or [])
    except (ConfigError, TypeError):
        return ()
    return tuple((str(message["role"]), str(message["content"])) for message in history)


def _messages_or_text(row: Mapping[str, Any]) -> Any:
    """Return the chat or the text with the questions of a row; None without one."""
    if (messages := row.get("messages")) is not None:
        return messages
    return next((row[name] for name in QUESTION_COLUMNS if row.get(name)), None)


def _is_question(message: object) -> bool:
    """Return whether a message is of a user and has a text."""
    if not isinstance(message, Mapping) or message.get("role") != "user":
        return False
    content = message.get("content")
    return isinstance(content, str) and bool(content.strip())


def read_test_questions(files: Iterable[Path]) -> KnownTexts:
    """Return the questions of test files, to keep them out of training data.

    Args:
        files: files as `phi3 data` writes or reads them: rows with `messages`, preferences, questions of
            a batch, or tables with a column of questions.

    Raises:
        OpsError: a file cannot be read, has no rows, or has a row without a question.
    """
    questions: dict[str, None] = {}
    for file in files:
        rows = 0
        for line, row in _read_rows(file):
            rows += 1
            texts = questions_of_row(row)
            if not texts:
                known = ", ".join(("messages", *QUESTION_COLUMNS))
                what = f"{file}, line {line} has no question"
                raise OpsError(what, f"A row of a test file has one of these columns: {known}.")
            questions |= dict.fromkeys(texts)
        if not rows:
            raise OpsError(f"{file} has no rows", "Give the file of the test questions.")
    return KnownTexts(questions)


def has_chats(file: Path) -> bool:
    """Return whether `phi3 finetune` can evaluate on a file: JSONL whose first row has `messages`."""
    return file.suffix.lower() in _JSON_SUFFIXES and "messages" in next(iter(read_jsonl(file)), {})


def _read_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the line number and the row of each line of a file."""
    if file.suffix.lower() in _JSON_SUFFIXES:
        yield from enumerate(read_jsonl(file), 1)
        return
    source = open_source(file, split=None, revision=None, columns=None)
    for name, rows in source.parts:
        for row in rows:
            if row.problem:
                raise OpsError(f"{name}, line {row.line}: {row.problem.detail}", "Correct the row.")
            yield row.line, row.row
