"""Where chats come from: a file, a folder of files, or a dataset on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OpsError
from .formats import FORMATS, Columns, RowReader

HUB_SPLIT = "train_sft[:1%]"  # the tutorials'
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass
class Source:
    """A source that can be read once."""

    name: str
    parts: Iterator[
        tuple[str, Iterator[RowReader]]
    ]  # name and rows of each file, opened when reached
    origin: dict[str, Any] = field(default_factory=dict)  # what the manifest says of it
    files: list[Path] = field(default_factory=list)


def open_source(
    source: str | Path, *, split: str | None, revision: str | None, columns: Columns
) -> Source:
    """Find a source; none of its rows is read yet.

    Args:
        source: a file, a folder of files, or a dataset's id on the hub (`owner/name`).
        split: of a dataset on the hub, in the words of the datasets library: `train_sft[:1%]`.
        revision: of a dataset on the hub: a branch, a tag or a commit.
        columns: with prompt and answer. By default a CSV file's are `prompt` and `answer`, and other
            rows have `messages`.

    Raises:
        OpsError: there is no such source, its format is not known, or the hub cannot be reached.
    """
    path, name = Path(source), str(source)
    is_hub = not path.exists() and path.suffix.lower() not in FORMATS and _HUB_ID.fullmatch(name)
    if is_hub:
        from .hub import open_hub

        return open_hub(name, split or HUB_SPLIT, revision, columns)
    files = _files(path)
    if split or revision:
        raise OpsError(f"{path} is not on the hub", "Leave out --split and --revision.")
    parts = ((str(file), _rows(file, columns)) for file in files)
    return Source(name, parts, {"name": path.resolve().name}, files)


def _files(path: Path) -> list[Path]:
    known = ", ".join(FORMATS)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in FORMATS)
        if not files:
            raise OpsError(f"{path} holds no data file", f"Give a folder with any of {known}.")
        return files
    if not path.exists():
        fix = "Give a file, a folder, or a dataset's id on the hub (owner/name)."
        raise OpsError(f"{path} does not exist", fix)
    if path.suffix.lower() not in FORMATS:
        raise OpsError(f"the format of {path} is not known", f"Give one of {known}.")
    return [path]


def _rows(path: Path, columns: Columns) -> Iterator[RowReader]:
    try:
        yield from FORMATS[path.suffix.lower()](path, columns)
    except OSError as error:
        raise OpsError(f"cannot read {path}: {error.strerror}", "Check its permissions.") from error
