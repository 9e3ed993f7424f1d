"""The journal of a teacher's answers: each is appended to a file, so that nothing is asked twice.

The first line is `{"format": "phi3-documents", "version": 1}`; each further line is an answer with the
hash of its request. An answer is on the disk before `add` returns. What follows the last line end was
never complete: its process was killed, and it is cut off.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import OpsError
from ..files import try_lock

FORMAT, VERSION = "phi3-documents", 1
_FIX = "Choose another --out."


@dataclass(frozen=True)
class JournalEntry:
    """One answer.

    Attributes:
        key: hash of the request.
        text: the answer's text; for an answer by a schema, its JSON.
        calls: number of calls that it took.
        prompt_tokens, completion_tokens: tokens of these calls; 0 if the endpoint does not report them.
    """

    key: str
    text: str
    calls: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of the prompt and the answer."""
        return self.prompt_tokens + self.completion_tokens


class Journal:
    """A journal that is open for appending. Use it in a `with` block. It is safe to use from threads.

    Args:
        file: the file; it is created if it does not exist.

    Raises:
        OpsError: the file cannot be opened, is not a journal or of a newer version, or another process
            has opened it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            flags = (
                os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            )
            self._descriptor = os.open(file, flags, 0o600)
        except OSError as error:
            raise OpsError(f"cannot write {file}: {error.strerror}", _FIX) from error
        try:
            if not try_lock(self._descriptor):
                what = f"another phi3 data is writing {file}"
                raise OpsError(what, "Wait until it has ended, or choose another --out.")
            self._entries = self._read()
            self._tokens = sum(entry.tokens for entry in self._entries.values())
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)

    @property
    def entries(self) -> list[JournalEntry]:
        """All answers, in the order in which they came."""
        with self._lock:
            return list(self._entries.values())

    @property
    def tokens(self) -> int:
        """Tokens of all answers and their prompts."""
        return self._tokens

    def get(self, key: str) -> JournalEntry | None:
        """Return the answer to a request, or None if it was not answered."""
        with self._lock:
            return self._entries.get(key)

    def add(self, entry: JournalEntry) -> None:
        """Append an answer. It is on the disk when this function returns.

        Raises:
            OpsError: the disk is full, or the file cannot be written.
        """
        line = json.dumps(asdict(entry)).encode("ascii") + b"\n"
        with self._lock:
            self._append(line)
            self._entries[entry.key] = entry
            self._tokens += entry.tokens

    def _append(self, line: bytes) -> None:
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, end)
            what = f"cannot write {self.file}: {error.strerror}"
            raise OpsError(what, "Free some space, and run the same command again.") from error

    def _read(self) -> dict[str, JournalEntry]:
        """Read the file, cut off an incomplete last line, and write a missing header."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            content = file.read()
        end = content.rfind(b"\n") + 1
        header, _, rest = content[:end].partition(b"\n")
        if end:
            self._check_header(header)
        elif content and not _header().startswith(content):
            raise OpsError(f"{self.file} is not a journal of phi3 data", _FIX)
        entries = {}
        for number, line in enumerate(rest.split(b"\n")[:-1], 2):
            entry = self._parse(number, line)
            entries[entry.key] = entry
        os.ftruncate(self._descriptor, end)
        if not end:
            self._append(_header())
        return entries

    def _check_header(self, line: bytes) -> None:
        try:
            header = json.loads(line)
            is_journal, version = header["format"] == FORMAT, int(header["version"])
        except (ValueError, LookupError, TypeError, RecursionError):
            is_journal, version = False, 0
        if not is_journal:
            raise OpsError(f"{self.file} is not a journal of phi3 data", _FIX)
        if version > VERSION:
            what = f"{self.file} was written by a newer version of phi3"
            raise OpsError(what, "Update phi3, or choose another --out. The file was not changed.")

    def _parse(self, number: int, line: bytes) -> JournalEntry:
        try:
            content = json.loads(line)
            counts = (content[name] for name in ("calls", "prompt_tokens", "completion_tokens"))
            return JournalEntry(str(content["key"]), str(content["text"]), *map(int, counts))
        except (ValueError, LookupError, TypeError, RecursionError):
            what = f"{self.file}, line {number} is damaged"
            raise OpsError(what, "Remove this line, and run the same command again.") from None


def _header() -> bytes:
    return json.dumps({"format": FORMAT, "version": VERSION}).encode() + b"\n"
