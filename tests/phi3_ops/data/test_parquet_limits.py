"""A small Parquet file does not unpack to gigabytes."""

from __future__ import annotations

import re
import subprocess
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from chats import chat_row, prepare, written_by_number
from phi3_ops.data import parquet_limits
from phi3_ops.data.formats import read_parquet
from phi3_ops.data.parquet_limits import decoded_bytes
from phi3_ops.errors import OpsError

MIB = 1 << 20


def table_of(count, content, **columns):
    """Chats with this answer, made without `count` copies in memory."""
    one = pa.Table.from_pylist([chat_row("q", content, **columns)])
    return pa.concat_tables([one] * count)


def read(path, columns=None):
    """Count the rows."""
    return sum(1 for _ in read_parquet(path, columns))


def peak_mib(path):
    """Return the memory that reading takes in another process, and its last line of errors."""
    code = (
        "import os, resource, sys; from pathlib import Path\n"
        "from phi3_ops.data.formats import read_parquet\n"
        "from phi3_ops.errors import OpsError\n"
        "import pyarrow.parquet, pyarrow.compute\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    print(sum(1 for _ in read_parquet(Path(sys.argv[1]), None)))\n"
        "except OpsError as error:\n"
        "    print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, flush=True)\n"
        "os._exit(0)"  # rarely, pyarrow's threads abort a process that ends within a read
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    message, size = done.stdout.splitlines()
    return int(size), message


@pytest.mark.finding(
    13,
    "a small Parquet file that unpacks to gigabytes",
    "the metadata is checked before reading, and the file is refused in one line",
)
def test_repeated_texts_are_not_unpacked(tmp_path):
    """The review's file: a text of 1 MiB, stored once and read 2,000 times."""
    path = tmp_path / "in.parquet"
    parquet.write_table(
        table_of(2000, "x" * MIB),
        path,
        compression="zstd",
        dictionary_pagesize_limit=4 * MIB,
        data_page_size=4 * MIB,
    )
    assert path.stat().st_size < 20_000
    size, message = peak_mib(path)
    assert re.search(r"cannot read .*in.parquet as Parquet: it unpacks to more than", message)
    assert size < 200


def test_compressed_texts_are_not_unpacked(tmp_path):
    path = tmp_path / "in.parquet"
    rows = [chat_row(f"q{n}", f"{n}" + "x" * MIB) for n in range(200)]
    parquet.write_table(pa.Table.from_pylist(rows), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 200_000
    size, message = peak_mib(path)
    pattern = r"Parquet: [\d,]+ bytes would unpack to 209,\d+,\d+ bytes. Check where"
    assert re.search(pattern, message) and size < 50


def test_lists_of_nothing_are_not_unpacked(tmp_path):
    path = tmp_path / "in.parquet"
    values = pa.nulls(3_000_000, pa.string())
    lists = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    parquet.write_table(pa.table({"messages": lists}), path, compression="zstd")
    with pytest.raises(OpsError, match="would unpack to 3,000,000 values"):
        read(path)


def test_rows_of_nothing_are_not_unpacked(tmp_path):
    path = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"messages": pa.nulls(3_000_000, pa.string())}), path)
    with pytest.raises(OpsError, match="bytes would unpack to [123],...,... values"):
        read(path)


def test_a_long_row_is_refused_with_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_limits, "MAX_ROW_BYTES", 2000)
    monkeypatch.setattr(parquet_limits, "PART_BYTES", 1500)
    path = tmp_path / "in.parquet"
    rows = [chat_row(f"q{n}", "x" * (3000 if n == 7 else 100)) for n in range(20)]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(OpsError, match=r"in.parquet as Parquet: row 8 has 3,\d+ bytes"):
        read(path)


@pytest.mark.parametrize("part", [1, 700, 16 * MIB])
def test_parts_have_all_rows_in_order(tmp_path, monkeypatch, part):
    monkeypatch.setattr(parquet_limits, "PART_BYTES", part)
    rows = [chat_row(f"q{n}", f"a{n}" * (n % 7 + 1), n=n, tags=["x", None]) for n in range(50)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=30)
    source_rows = list(read_parquet(tmp_path / "in.parquet", None))
    assert [(row.line, row.row) for row in source_rows] == list(enumerate(rows, 1))
    prepare(tmp_path, tmp_path / "in.parquet")
    assert written_by_number(tmp_path) == rows


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.binary(),
        pa.list_(pa.large_string()),
        pa.map_(pa.string(), pa.string()),
        pa.struct([("a", pa.string()), ("b", pa.float64())]),
        pa.timestamp("us"),
        pa.decimal128(30, 3),
        pa.list_(pa.int8(), 3),
    ],
    ids=str,
)
def test_other_columns_keep_their_values(tmp_path, kind):
    from datetime import datetime
    from decimal import Decimal

    value = {
        "large_string": "x",
        "binary": b"x",
        "timestamp[us]": datetime(2026, 1, 2),
        "decimal128(30, 3)": Decimal("1.500"),
        "list<item: large_string>": ["x", None],
        "map<string, string>": [("a", "b")],
        "struct<a: string, b: double>": {"a": "x", "b": 1.5},
        "fixed_size_list<item: int8>[3]": [1, 2, 3],
    }.get(str(kind), "x")
    messages = [chat_row(f"q{n}")["messages"] for n in range(3)]
    table = pa.table({"messages": messages, "more": pa.array([value, None, value], kind)})
    parquet.write_table(table, tmp_path / "in.parquet")
    rows = [row.row["more"] for row in read_parquet(tmp_path / "in.parquet", None)]
    assert rows == [value, None, value]


def test_the_size_of_a_slice_is_that_of_its_rows():
    batch = pa.RecordBatch.from_pylist([chat_row("q", "x" * 1000 * n) for n in range(4)])
    sizes = [decoded_bytes(batch.slice(n, 1)) for n in range(4)]
    assert [size - sizes[0] for size in sizes] == [0, 1000, 2000, 3000]
    assert decoded_bytes(batch) == sum(sizes)
