"""Datasets on the hub, read over the network as they are needed.

Of Parquet files, which the hub's datasets nearly always are, the footers and the row groups that hold
the rows asked for are fetched, and nothing else. The datasets library's own streaming fetches ahead
(37 MB for 1 MB of rows in our test) and, for a slice from the middle, everything in front of it. What
the splits are and where their files lie is its to say, and files of other formats are its to stream.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import OpsError
from .formats import Columns, RowReader, as_chats, need_columns, open_table, table_rows
from .sources import Source


def open_hub(name: str, split: str, revision: str | None, columns: Columns) -> Source:
    """Find a dataset and a slice of it.

    Args:
        name: `owner/name`.
        split: `train_sft`, `train_sft[:1%]`, `train[:10]+test[:10]`: the datasets library's words.
        revision: a branch, a tag or a commit; by default the main branch.
        columns: with prompt and answer, where rows have no `messages`.

    Raises:
        OpsError: the hub cannot be reached, or has no such dataset, revision or split.
    """
    try:
        import datasets
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise OpsError(
            "datasets is not installed", "pip install 'phi3-promptflow[data]'"
        ) from error
    datasets.disable_progress_bars()
    disable_progress_bars()
    with _clear(name):
        builder = datasets.load_dataset_builder(name, revision=revision)
        slices = datasets.ReadInstruction.from_spec(split).to_absolute(_lengths(builder, split))
    parts = ((f"{name}/{part.splitname}", _rows(name, builder, part, columns)) for part in slices)
    return Source(name, parts, {"name": name, "revision": builder.hash, "split": split})


@contextmanager
def _clear(name: str) -> Iterator[None]:
    """Whatever the libraries raise, as one line."""
    try:
        yield
    except (OpsError, KeyboardInterrupt):
        raise
    except Exception as error:  # of datasets, huggingface_hub, fsspec, httpx and pyarrow
        what = " ".join(str(error).split()) or type(error).__name__
        fix = (
            "Check the name, --split and --revision, and that the hub can be reached "
            "(HF_TOKEN for a private dataset); or download it and give the folder."
        )
        raise OpsError(f"cannot read {name} from the hub: {what}", fix) from error


def _files(builder: Any, split: str) -> list[str]:
    return [str(file) for file in builder.config.data_files[split]]


def _is_parquet(files: list[str]) -> bool:
    return all(file.endswith(".parquet") for file in files)


def _open(file: str) -> Any:
    from huggingface_hub import HfFileSystem

    # No block size: pyarrow asks for just the ranges that it needs.
    return HfFileSystem().open(file, "rb", cache_type="none")


def _lengths(builder: Any, spec: str) -> dict[str, int]:
    """Rows of the splits that a slice may be of: the card's word, or the footers' of Parquet files.

    Without either, a slice by numbers still can be taken: of something endless.
    """
    known = builder.info.splits or {}
    lengths = {}
    for split in builder.config.data_files:
        files = _files(builder, split)
        if split not in spec:
            lengths[split] = 0  # only named where a split is not known
        elif split in known:
            lengths[split] = known[split].num_examples
        elif _is_parquet(files):
            lengths[split] = sum(_length(file) for file in files)
        elif "%" in spec or "-" in spec.partition("[")[2]:
            fix = "Give the slice in rows, from the start: [:2000]."
            raise OpsError(f"the hub does not say how many rows split {split!r} has", fix)
        else:
            lengths[split] = sys.maxsize
    return lengths


def _length(file: str) -> int:
    from pyarrow import parquet  # type: ignore[import-untyped]

    with _open(file) as opened:
        return int(parquet.ParquetFile(opened).metadata.num_rows)


def _rows(name: str, builder: Any, part: Any, columns: Columns) -> Iterator[RowReader]:
    files = _files(builder, part.splitname)
    read = _parquet if _is_parquet(files) else _stream
    with _clear(name):
        yield from read(builder, part, columns)


def _parquet(builder: Any, part: Any, columns: Columns) -> Iterator[RowReader]:
    first = 0  # the file's first row, in the split
    for file in _files(builder, part.splitname):
        if first >= part.to:
            return
        name = file.rpartition("/")[2]
        with _open(file) as opened:
            table = open_table(opened, name, columns)
            start, stop = max(part.from_ - first, 0), part.to - first
            for read in table_rows(table, name, columns, start, stop):
                yield read._replace(line=read.line + first)
            first += table.metadata.num_rows


def _stream(builder: Any, part: Any, columns: Columns) -> Iterator[RowReader]:
    rows = builder.as_streaming_dataset(split=part.splitname)
    rows = rows.skip(part.from_).take(part.to - part.from_)
    reads = (RowReader(line, row) for line, row in enumerate(rows, part.from_ + 1))
    first = next(reads, None)
    if first is None:
        return
    need_columns(part.splitname, list(first.row), columns or ("messages",))
    chained = _after(first, reads)
    yield from chained if columns is None else as_chats(chained, columns)


def _after(first: RowReader, rest: Iterator[RowReader]) -> Iterator[RowReader]:
    yield first
    yield from rest
