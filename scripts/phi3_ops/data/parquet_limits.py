"""Limits for Parquet files, so that a file of a few KiB does not unpack to gigabytes.

Compressed pages, dictionaries and run lengths each store repeated values nearly for free. The metadata
of a file bounds what its pages unpack to. Texts are read as dictionaries, so that repeated ones stay
small until their size is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import OpsError

FREE_BYTES = 64 << 20  # bytes that any file may unpack to
FREE_VALUES = 1_000_000  # rows, and values in lists, that any file may unpack to
BYTES_PER_PACKED_BYTE = 100  # chats are compressed to about a third
VALUES_PER_PACKED_BYTE = 20
MAX_ROW_BYTES = 64 << 20
PART_BYTES = 16 << 20  # of rows that become Python objects at once
_VALUE_BYTES = 50  # of a Python object, besides its text
_TEXT_TYPES = ("STRING", "NONE", "JSON", "ENUM")


def text_columns(schema: Any) -> list[str]:
    """Return the paths of the text columns of a `pyarrow.parquet.ParquetSchema`, nested ones included."""
    columns = [schema.column(number) for number in range(len(schema))]
    return [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type in _TEXT_TYPES
    ]


class UnpackedSize:
    """Counts what a Parquet file unpacks to, and refuses a file that is not plausible.

    Args:
        name: name of the file, for errors.
        metadata: `pyarrow.parquet.FileMetaData` of the file.
    """

    def __init__(self, name: str, metadata: Any) -> None:
        self._name = name
        self._metadata = metadata
        # Of the row groups so far: bytes in the file, in their pages, and as Python objects; and values.
        self._packed = self._unpacked = self._bytes = self._values = 0

    @property
    def _allowed(self) -> int:
        return FREE_BYTES + BYTES_PER_PACKED_BYTE * self._packed

    def check_group(self, number: int) -> None:
        """Check the metadata of a row group before it is read.

        Raises:
            OpsError: it would unpack to too many bytes or values.
        """
        group, schema = self._metadata.row_group(number), self._metadata.schema
        columns = [group.column(index) for index in range(group.num_columns)]
        in_lists = sum(
            column.num_values
            for index, column in enumerate(columns)
            if schema.column(index).max_repetition_level
        )
        self._packed += sum(max(column.total_compressed_size, 0) for column in columns)
        self._unpacked += sum(column.total_uncompressed_size for column in columns)
        self._values += max(in_lists, group.num_rows)
        what = f"{self._packed:,} bytes would unpack to"
        if self._unpacked > self._allowed:
            raise self._error(f"{what} {self._unpacked:,} bytes")
        if self._values > FREE_VALUES + VALUES_PER_PACKED_BYTE * self._packed:
            raise self._error(f"{what} {self._values:,} values")

    def parts(self, batch: Any, first: int) -> Iterator[tuple[int, Any]]:
        """Yield a batch in parts that fit into memory as Python objects, with their first row's number.

        Args:
            batch: a `pyarrow.RecordBatch`.
            first: number of its first row, from 0.

        Raises:
            OpsError: a row is too long, or the file unpacks to too many bytes.
        """
        size = decoded_bytes(batch)
        self._bytes += size
        if self._bytes > self._allowed:
            raise self._error(f"it unpacks to more than {self._allowed:,} bytes")
        yield from self._split(batch, first, size)

    def _split(self, batch: Any, first: int, size: int) -> Iterator[tuple[int, Any]]:
        if size <= PART_BYTES or batch.num_rows == 1:
            if size > MAX_ROW_BYTES:
                raise self._error(f"row {first + 1} has {size:,} bytes")
            yield first, batch
            return
        half = batch.num_rows // 2
        for start, part in ((0, batch.slice(0, half)), (half, batch.slice(half))):
            yield from self._split(part, first + start, decoded_bytes(part))

    def _error(self, reason: str) -> OpsError:
        return OpsError(f"cannot read {self._name} as Parquet: {reason}", "Check where it is from.")


def decoded_bytes(batch: Any) -> int:
    """Return about how much memory the rows of a `pyarrow.RecordBatch` take as Python objects."""
    return sum(_array_bytes(column) for column in batch.columns)


def _array_bytes(array: Any) -> int:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    kind, size = array.type, _VALUE_BYTES * len(array)
    if pa.types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            return size
        lengths = pc.binary_length(array.dictionary)
        return size + (pc.sum(pc.take(lengths, array.indices)).as_py() or 0)
    if _is_text(kind):
        return size + (pc.sum(pc.binary_length(array)).as_py() or 0)
    if pa.types.is_struct(kind):
        return size + sum(_array_bytes(child) for child in array.flatten())
    if pa.types.is_map(kind):  # it has no `flatten`, and its keys and items are those of all rows
        start, end = (array.offsets[index].as_py() for index in (0, -1))
        children = (array.keys, array.items)
        return size + sum(_array_bytes(child.slice(start, end - start)) for child in children)
    if pa.types.is_nested(kind) and hasattr(array, "flatten"):  # lists
        return size + _array_bytes(array.flatten())
    return size + int(array.nbytes)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )
