"""Rows of chats for the tests of `phi3 data`, and what it wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3_ops.data.manifest import DataManifest
from phi3_ops.data.prepare import DataOptions, prepare_data
from phi3_ops.files.json_files import read_jsonl

Row = dict[str, Any]


def chat_row(*contents: Any, **columns: Any) -> Row:
    """A row whose messages have these contents, user first; a single prompt gets the answer "yes"."""
    contents = contents if len(contents) > 1 else (*contents, "yes")
    roles = ("user", "assistant") * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents)]
    return {"messages": messages, **columns}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[Row], row_group_size: int = 3) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=row_group_size)
    return path


def write_csv(
    path: Path, header: Sequence[str] = ("prompt", "answer", "n"), encoding: str = "utf-8"
) -> Path:
    """Ten records: `q0`, `a0` and 0, and so on."""
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([header, *((f"q{n}", f"a{n}", n) for n in range(10))])
    return path


def prepare(tmp_path: Path, source: str | Path, **options: Any) -> DataManifest:
    """`prepare_data` into the folder `out`."""
    return prepare_data(source, tmp_path / "out", seed=1, options=DataOptions(**options))


def written(tmp_path: Path, name: str) -> list[Row]:
    """The rows of a written file: train, test, questions or rejects."""
    return read_jsonl(tmp_path / "out" / f"{name}.jsonl")


def written_by_number(tmp_path: Path) -> list[Row]:
    """All written chats, sorted by their column `n`."""
    rows = written(tmp_path, "train") + written(tmp_path, "test")
    return sorted(rows, key=lambda row: int(row["n"]))


def prompts(rows: Iterable[Row]) -> set[str]:
    return {row["messages"][0]["content"] for row in rows}
