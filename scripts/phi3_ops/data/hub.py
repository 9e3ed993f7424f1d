"""Read datasets on the hub over the network.

Nearly all datasets on the hub are Parquet files. Of these, only the footers and the row groups that
contain the requested rows are downloaded. The streaming of the datasets library downloads more: it reads
ahead (37 MB for 1 MB of rows in our test), and for a slice from the middle it reads everything before
the slice. JSONL files, compressed or not, are read here too, with limits. The datasets library finds the
splits and their files, and it streams files of other formats if they are not compressed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from ..errors import OpsError, without_user_info
from ..installation import install_command
from .formats import as_chats, open_table, require_columns, table_rows
from .hub_json import hub_json_rows, is_json_lines, refuse_compressed
from .source_rows import Columns, Source, SourceOrigin, SourceRow


def open_hub(name: str, split: str, revision: str | None, columns: Columns) -> Source:
    """Open a slice of a dataset. Its rows are read later.

    Args:
        name: id of the dataset, `owner/name`.
        split: slice in the syntax of the datasets library: `train_sft`, `train_sft[:1%]`,
            `train[:10]+test[:10]`.
        revision: branch, tag or commit; None means the main branch.
        columns: columns of prompt and answer; None if rows have `messages`.

    Raises:
        OpsError: the hub cannot be reached, or the dataset, the revision or the split does not exist.
    """
    try:
        import datasets
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise OpsError("datasets is not installed", install_command("data")) from error
    for library in ("datasets", "huggingface_hub"):  # they log URLs with HF_ENDPOINT's password
        logging.getLogger(library).setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    disable_progress_bars()
    with _hub_errors(name):
        builder = datasets.load_dataset_builder(name, revision=revision)
        slices = datasets.ReadInstruction.from_spec(split).to_absolute(_lengths(builder, split))
    parts = (
        (f"{name}/{part.splitname}", _part_rows(name, builder, part, columns)) for part in slices
    )
    return Source(name, parts, SourceOrigin(name, builder.hash, split))


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Turn every error of the libraries into an OpsError of one line."""
    try:
        yield
    except (OpsError, KeyboardInterrupt):
        raise
    except Exception as error:  # each of the libraries has its own errors
        what = " ".join(without_user_info(str(error)).split()) or type(error).__name__
        fix = (
            "Check the name, --split and --revision, and that the hub can be reached "
            "(HF_TOKEN for a private dataset); or download the dataset and give its folder."
        )
        raise OpsError(f"cannot read {name} from the hub: {what}", fix) from error


def _files(builder: Any, split: str) -> list[str]:
    return [str(file) for file in builder.config.data_files[split]]


def _is_parquet(files: list[str]) -> bool:
    return all(file.endswith(".parquet") for file in files)


def _open(file: str) -> Any:
    from huggingface_hub import HfFileSystem

    # Without a cache, because pyarrow requests exactly the ranges that it needs.
    return HfFileSystem().open(file, "rb", cache_type="none")


def _lengths(builder: Any, spec: str) -> dict[str, int]:
    """Return the number of rows of each split that a slice names.

    The number comes from the dataset card, or from the footers of Parquet files. Without both, the split
    counts as endless, so that a slice by row numbers still works.
    """
    known = builder.info.splits or {}
    lengths = {}
    for split in builder.config.data_files:
        files = _files(builder, split)
        if split not in spec:
            lengths[split] = 0  # not read; the errors of the datasets library list the name
        elif split in known:
            lengths[split] = known[split].num_examples
        elif _is_parquet(files):
            lengths[split] = sum(_length(file) for file in files)
        elif "%" in spec or "-" in spec.partition("[")[2]:
            fix = "Give the slice in rows, from the start: [:2000]."
            raise OpsError(f"the number of rows of the split {split!r} is unknown", fix)
        else:
            lengths[split] = sys.maxsize
    return lengths


def _length(file: str) -> int:
    from pyarrow import parquet  # type: ignore[import-untyped]

    with _open(file) as opened:
        return int(parquet.ParquetFile(opened).metadata.num_rows)


def _part_rows(name: str, builder: Any, part: Any, columns: Columns) -> Iterator[SourceRow]:
    files = _files(builder, part.splitname)
    if _is_parquet(files):
        read_rows = _parquet_rows
    elif all(map(is_json_lines, files)):
        read_rows = _json_rows
    else:
        read_rows = _streamed_rows
    with _hub_errors(name):
        yield from read_rows(builder, part, columns)


def _parquet_rows(builder: Any, part: Any, columns: Columns) -> Iterator[SourceRow]:
    first = 0  # number of the first row of the file, in the split
    for file in _files(builder, part.splitname):
        if first >= part.to:
            return
        name = file.rpartition("/")[2]
        with _open(file) as opened:
            table = open_table(opened, name, columns)
            start, stop = max(part.from_ - first, 0), part.to - first
            for source_row in table_rows(table, name, columns, start, stop):
                yield source_row._replace(line=source_row.line + first)
            first += table.metadata.num_rows


def _json_rows(builder: Any, part: Any, columns: Columns) -> Iterator[SourceRow]:
    rows = chain.from_iterable(map(hub_json_rows, _files(builder, part.splitname)))
    numbered = enumerate(islice(rows, part.from_, part.to), part.from_ + 1)
    source_rows = (source_row._replace(line=line) for line, source_row in numbered)
    yield from source_rows if columns is None else as_chats(source_rows, columns)


def _streamed_rows(builder: Any, part: Any, columns: Columns) -> Iterator[SourceRow]:
    for file in _files(builder, part.splitname):
        refuse_compressed(file)
    rows = builder.as_streaming_dataset(split=part.splitname)
    rows = rows.skip(part.from_).take(part.to - part.from_)
    source_rows = (SourceRow(line, row) for line, row in enumerate(rows, part.from_ + 1))
    first = next(source_rows, None)
    if first is None:
        return
    require_columns(part.splitname, list(first.row), columns[:2] if columns else ("messages",))
    all_rows = chain([first], source_rows)
    yield from all_rows if columns is None else as_chats(all_rows, columns)
