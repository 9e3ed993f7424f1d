"""Open a source of chats: a file, a folder of files, or a dataset on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OpsError
from .columns import find_columns
from .formats import FORMATS
from .hub import open_hub
from .source_rows import Columns, Source, SourceOrigin, SourceRow

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
        columns: columns of prompt and answer. None finds the columns of a file by their usual names; the
            rows of the hub have `messages`.

    Raises:
        UnclearColumnsError: the columns of a file do not have the usual names.
        OpsError: the source does not exist, its format is unknown, or the hub cannot be reached.
    """
    path, name = Path(source), str(source)
    if _is_hub(path):
        return open_hub(name, split or HUB_SPLIT, revision, columns)
    files = _files(path)
    if split or revision:
        raise OpsError(f"{path} is not on the hub", "Leave out --split and --revision.")
    chosen = [columns or _find_columns(file) for file in files]
    parts = ((str(file), _rows(file, columns)) for file, columns in zip(files, chosen))
    return Source(name, parts, SourceOrigin(path.resolve().name), files, chosen[0])


def check_source(source: Path, columns: Columns) -> None:
    """Check that a file or folder can be opened, that its columns are clear, and that it has a row.

    A dataset on the hub is not checked, because that takes requests.

    Args:
        source, columns: the arguments of `open_source`.

    Raises:
        OpsError: those of `open_source`, or the source has no rows.
    """
    if not _is_hub(source):
        parts = open_source(source, split=None, revision=None, columns=columns).parts
        if not any(True for _, rows in parts for _ in rows):
            raise empty_source(str(source))


def empty_source(name: str) -> OpsError:
    """Return the error for a source without rows."""
    return OpsError(f"{name} has no rows", "Give a file with questions and answers, or with chats.")


def _is_hub(path: Path) -> bool:
    is_data_file = path.exists() or path.suffix.lower() in FORMATS
    return not is_data_file and bool(_HUB_ID.fullmatch(str(path)))


def _files(path: Path) -> list[Path]:
    known = ", ".join(FORMATS)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in FORMATS)
        if not files:
            raise OpsError(f"{path} contains no data file", f"Give a folder with files of {known}.")
        return files
    if not path.exists():
        fix = "Give a file, a folder, or the id of a dataset on the hub (owner/name)."
        is_file = path.suffix.lower() in FORMATS
        raise OpsError(f"{path} does not exist", "Check the path." if is_file else fix)
    if path.suffix.lower() not in FORMATS:
        raise OpsError(f"the format of {path} is unknown", f"Give a file of {known}.")
    return [path]


def _find_columns(path: Path) -> Columns:
    with _readable(path):
        return find_columns(path)


def _rows(path: Path, columns: Columns) -> Iterator[SourceRow]:
    with _readable(path):
        yield from FORMATS[path.suffix.lower()](path, columns)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OpsError(f"cannot read {path}: {error.strerror}", "Check its permissions.") from error
