"""Read JSONL files on the hub, compressed or not, with limits for what they unpack to."""

from __future__ import annotations

import bz2
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from ..errors import OpsError
from .formats import json_rows
from .line_limits import bounded_lines
from .parquet_limits import BYTES_PER_PACKED_BYTE, FREE_BYTES
from .source_rows import SourceRow

_UNPACK: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open}
# On the hub, a compressed `.json` file usually contains one object per line.
_JSON_LINES = re.compile(r".*\.((jsonl|ndjson)(\.(gz|bz2))?|json\.(gz|bz2))", re.IGNORECASE)
_COMPRESSED = re.compile(r".*\.(7z|bz2|gz|lz4|rar|tar|tgz|txz|xz|zip|zst)", re.IGNORECASE)
_BUFFER = 1 << 20
_UTF8_MARK = b"\xef\xbb\xbf"


def is_json_lines(file: str) -> bool:
    """Return whether a file, by its name, is a JSONL file that can be read here."""
    return bool(_JSON_LINES.fullmatch(file))


def refuse_compressed(file: str) -> None:
    """Raise OpsError if a file, by its name, is compressed: what others unpack it to has no limit."""
    if "::" in file or _COMPRESSED.fullmatch(file):
        fix = "Download and unpack the dataset, and give its folder."
        raise OpsError(f"cannot read {_name(file)} on the hub: it is compressed", fix)


def hub_json_rows(file: str) -> Iterator[SourceRow]:
    """Yield the rows of a JSONL file on the hub.

    Args:
        file: address of the file, `hf://datasets/owner/name@commit/path`.

    Raises:
        OpsError: a line is too long, or the file unpacks to much more than chats do.
    """
    from huggingface_hub import HfFileSystem

    unpack = _UNPACK.get(file.rpartition(".")[2].lower())
    with ExitStack() as stack:
        packed = stack.enter_context(HfFileSystem().open(file, "rb"))
        buffered = stack.enter_context(io.BufferedReader(packed, _BUFFER))
        unpacked = stack.enter_context(unpack(buffered)) if unpack else buffered
        for source_row in json_rows(_lines(unpacked, packed, _name(file))):
            yield source_row._replace(start=None)  # it cannot be copied from a file here


def _lines(unpacked: Any, packed: Any, name: str) -> Iterator[bytes]:
    """Yield the lines of a file without its byte-order mark, and refuse more than chats unpack to."""
    size = 0
    for line in bounded_lines(unpacked, name):
        if not size:
            line = line.removeprefix(_UTF8_MARK)
        size += len(line)
        if size > FREE_BYTES + BYTES_PER_PACKED_BYTE * packed.tell():
            what = f"cannot read {name}: {packed.tell():,} bytes unpack to more than {size:,} bytes"
            raise OpsError(what, "Check where it is from.")
        yield line


def _name(file: str) -> str:
    return file.rpartition("/")[2]
