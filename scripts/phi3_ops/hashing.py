"""SHA-256 of bytes, of files and of lists of parts, in the forms that the rooms need."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

from .errors import OpsError

READ_BYTES = 1 << 20  # bytes of a file that are held in memory at once


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_base64(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in base64 with padding."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def sha256_urlsafe(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in URL-safe base64 without padding, as wheels record it."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        OpsError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise OpsError(f"cannot read {path}: {error.strerror}", "Check the path.") from error
    return digest.hexdigest()


def parts_sha256(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 of a list of parts, in hex.

    Each part is hashed with its length in front, so that two different lists never give the same bytes.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()
