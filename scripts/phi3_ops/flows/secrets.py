"""A search for keys in files that leave this machine: images and uploads."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

from phi3_tools.client import SETTINGS_VARIABLES

from ..errors import OpsError
from ..pf import NO_KEY, list_connections, load_connection

# A shorter value is not a key, and it would occur in many texts by chance.
SHORTEST_SECRET = 8
KEY_VARIABLES = (SETTINGS_VARIABLES["key"], "PHI3_ENDPOINT_KEY", "PHI3_SERVE_TOKEN")
MAX_NESTING = 2  # such as a gzip file in a zip file
MAX_UNPACKED_BYTES = 64 * 2**20  # of one packed file
GZIP_MAGIC = b"\x1f\x8b\x08"
UNPACK_ERRORS = (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile)
# Bytes inside a base64 text that is broken into lines or encoded as UTF-16.
NOT_BASE64 = b" \t\r\n\0"


def refuse_secrets(folder: Path) -> str:
    """Search every file, also inside gzip and zip files, for the keys that this machine knows.

    Returns:
        What was searched for, as sentences for the user.

    Raises:
        OpsError: a file contains a key, or cannot be searched. The error names the file, and the
            connection or variable.
    """
    owners = _known_secrets()
    forms = {form: owner for secret, owner in owners.items() for form in _forms(secret)}
    base64_forms = {
        form: owner for secret, owner in owners.items() for form in _base64_forms(secret)
    }
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in paths:
        for name, content in _contents(str(path.relative_to(folder)), path.read_bytes()):
            _refuse(name, content, forms)
            _refuse(name, _without_line_breaks(content), base64_forms)
    return (
        f"Searched {_count(len(paths), 'file')} for {_count(len(owners), 'key')} that this machine "
        "knows: as text, base64 and UTF-16, and inside gzip and zip files. Other keys and other forms "
        "are not found."
    )


def _refuse(name: str, content: bytes, forms: Mapping[bytes, str]) -> None:
    for form, owner in forms.items():
        if form in content:
            fix = "Remove it from the file: the container gets it from its environment."
            raise OpsError(f"{name} contains {owner}", fix)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _known_secrets() -> Mapping[str, str]:
    """Return the keys in the store and in the environment: key -> description of its owner."""
    owners: dict[str, str] = {}
    for variable in KEY_VARIABLES:
        if value := os.environ.get(variable):
            owners[value] = f"the value of {variable}"
    for listed in list_connections():
        connection = load_connection(listed.name)
        if connection is None:
            continue
        secrets = dict(connection.secrets)
        if key := (connection.configs or {}).get(
            "key"
        ):  # Foundry lets users store it in either field
            secrets.setdefault("key", key)
        owners |= {value: f"the {key} of {listed.name}" for key, value in secrets.items() if value}
    owners.pop(NO_KEY, None)
    return {secret: owner for secret, owner in owners.items() if len(secret) >= SHORTEST_SECRET}


def _encodings(secret: str) -> list[bytes]:
    """Return a key as UTF-8 and as both forms of UTF-16."""
    # A variable of the environment can contain bytes that are not UTF-8.
    return [
        os.fsencode(secret),
        secret.encode("utf-16-le", "surrogatepass"),
        secret.encode("utf-16-be", "surrogatepass"),
    ]


def _forms(secret: str) -> set[bytes]:
    """Return the bytes of a key in a file, also with the escapes of JSON and of URLs."""
    escaped = json.dumps(secret)[1:-1]
    texts = (escaped, json.dumps(escaped)[1:-1], quote(secret, errors="surrogateescape"))
    return {*_encodings(secret), *(text.encode() for text in texts)}


def _base64_forms(secret: str) -> set[bytes]:
    """Return the base64 texts of a key, for each number of bytes that may precede it, modulo 3."""
    forms = set()
    for key in _encodings(secret):
        for before in range(3):
            text = base64.b64encode(b"\0" * before + key)
            # The first characters contain bits of the bytes before, and the last one of those after.
            text = text[(0, 2, 3)[before] : (before + len(key)) * 8 // 6]
            forms |= {text, text.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms


def _without_line_breaks(content: bytes) -> bytes:
    return content.replace(b"\\r", b"").replace(b"\\n", b"").translate(None, NOT_BASE64)


def _contents(name: str, content: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of a file and, if it is a packed one, of every file inside it.

    Raises:
        OpsError: a packed file is damaged, encrypted or too large, or the nesting is too deep.
    """
    yield name, content
    is_gzip = content.startswith(GZIP_MAGIC)
    if not is_gzip and not zipfile.is_zipfile(io.BytesIO(content)):
        return
    if depth == MAX_NESTING:
        raise _not_searched(f"{name} is packed more than twice")
    try:
        members = list(_unpacked_gzip(name, content) if is_gzip else _unpacked_zip(name, content))
    except UNPACK_ERRORS as error:
        raise _not_searched(f"{name} cannot be unpacked") from error
    for member, unpacked in members:
        yield from _contents(member, unpacked, depth + 1)


def _unpacked_gzip(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        yield name, _read(name, file, MAX_UNPACKED_BYTES)


def _unpacked_zip(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    limit = MAX_UNPACKED_BYTES
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                unpacked = _read(name, file, limit)
            limit -= len(unpacked)
            yield f"{name}: {member.filename}", unpacked


def _read(name: str, file: IO[bytes] | gzip.GzipFile, limit: int) -> bytes:
    unpacked = file.read(limit + 1)
    if len(unpacked) > limit:
        raise _not_searched(f"{name} unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    return unpacked


def _not_searched(what: str) -> OpsError:
    return OpsError(f"{what}: it cannot be searched for keys", "Remove it from the flow.")
