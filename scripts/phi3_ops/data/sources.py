"""Open a source of chats: a file, a folder of files, or a dataset on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import OpsError
from .formats import FORMATS, Columns, Source, SourceOrigin, SourceRow
from .hub import open_hub

HUB_SPLIT = "train_sft[:1%]"  # the slice that the tutorials use
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_source(
    source: str | Path, *, split: str | None, revision: str | None, columns: Columns
) -> Source:
    """Open a source. Its rows are read later.

    Args:
        source: a file, a folder of files, or the id of a dataset on the hub (`owner/name`).
        split: slice of a dataset on the hub, in the syntax of the datasets library: `train_sft[:1%]`.
        revision: branch, tag or commit of a dataset on the hub.
        columns: columns of prompt and answer. The default is `prompt` and `answer` for a CSV file; other
            rows have `messages`.

    Raises:
        OpsError: the source does not exist, its format is unknown, or the hub cannot be reached.
    """
    path, name = Path(source), str(source)
    is_hub = not path.exists() and path.suffix.lower() not in FORMATS and _HUB_ID.fullmatch(name)
    if is_hub:
        return open_hub(name, split or HUB_SPLIT, revision, columns)
    files = _files(path)
    if split or revision:
        raise OpsError(f"{path} is not on the hub", "Leave out --split and --revision.")
    parts = ((str(file), _rows(file, columns)) for file in files)
    return Source(name, parts, SourceOrigin(path.resolve().name), files)


def _files(path: Path) -> list[Path]:
    known = ", ".join(FORMATS)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in FORMATS)
        if not files:
            raise OpsError(f"{path} contains no data file", f"Give a folder with files of {known}.")
        return files
    if not path.exists():
        fix = "Give a file, a folder, or the id of a dataset on the hub (owner/name)."
        raise OpsError(f"{path} does not exist", fix)
    if path.suffix.lower() not in FORMATS:
        raise OpsError(f"the format of {path} is unknown", f"Give a file of {known}.")
    return [path]


def _rows(path: Path, columns: Columns) -> Iterator[SourceRow]:
    try:
        yield from FORMATS[path.suffix.lower()](path, columns)
    except OSError as error:
        raise OpsError(f"cannot read {path}: {error.strerror}", "Check its permissions.") from error
