"""What the chat page says before the first question: captions of the connections, and suggestions."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

SUGGESTIONS = 3
SAMPLES_FILE = "samples.jsonl"  # in a flow's folder
BASE_SUFFIX = "-base"  # of the connection that the quickstart makes for the base model
NOT_FINE_TUNED = "not fine-tuned"
_READ_LINES = 500
_MAX_CHARACTERS = 200  # of a suggested question


def connection_caption(connection: str) -> str:
    """Return a word about a connection's model: `NOT_FINE_TUNED` for the base model, or nothing."""
    return NOT_FINE_TUNED if connection.endswith(BASE_SUFFIX) else ""


def suggested_questions(file: Path) -> list[str]:
    """Return up to `SUGGESTIONS` short questions of a file, each with another answer.

    Args:
        file: JSONL file whose rows have `question`, and possibly `ground_truth`; rows that differ are
            ignored, and so is a file that does not exist.
    """
    questions: dict[str, str] = {}  # answer, or else question -> question
    try:
        with file.open(encoding="utf-8") as lines:
            for row in map(_parse, islice(lines, _READ_LINES)):
                question = row.get("question")
                if isinstance(question, str) and 0 < len(question) <= _MAX_CHARACTERS:
                    questions.setdefault(str(row.get("ground_truth") or question), question)
    except (OSError, UnicodeDecodeError):
        return []
    return list(questions.values())[:SUGGESTIONS]


def _parse(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}
