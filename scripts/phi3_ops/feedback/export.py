"""Feedback as a file of JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import OpsError
from ..files import write_jsonl
from .records import Feedback


def export_feedback(records: Sequence[Feedback], file: Path) -> None:
    """Write records to a new file, one JSON object per line: complete, or not at all.

    Like the store, the file can only be opened by the user: it contains conversations.

    Raises:
        OpsError: the file exists, or cannot be written.
    """
    if file.exists() or file.is_symlink():
        raise OpsError(f"{file} exists already", "Choose another file, or remove it.")
    write_jsonl(file, (record.to_json() for record in records), mode=0o600)
