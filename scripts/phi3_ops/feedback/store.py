"""The store of feedback: an SQLite database to which records are only added.

A record is on disk when `add` returns. Several processes may use a store at the same time: SQLite's
write-ahead log ("Write-Ahead Logging", sqlite.org/wal.html) lets them read while one of them writes.
Records are never changed. The only removal is that of a complete conversation.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from phi3_tools.connections import user_folder

from ..errors import OpsError
from ..files import file_lock, private_folder
from .records import Feedback, FeedbackFieldError

STORE_FILE = "feedback.sqlite"
VERSION = 1  # of the tables; a store of a newer version is not opened
APPLICATION_ID = 0x70683366  # "ph3f": says in the file's header that it is a feedback store
TIMEOUT_S = 30.0  # time to wait for another process that writes
_COLUMNS = tuple(field.name for field in fields(Feedback))
_TYPES = {"turn": "INTEGER NOT NULL", "id": "TEXT NOT NULL UNIQUE"}
_OPTIONAL = (
    *("who", "edited", "chosen", "rejected", "comment"),
    *("flow_version", "model", "connection", "against"),
)
_SCHEMA = (
    "CREATE TABLE feedback (position INTEGER PRIMARY KEY AUTOINCREMENT, {columns})",
    "CREATE INDEX feedback_conversation ON feedback (conversation)",
    "CREATE TRIGGER feedback_is_append_only BEFORE UPDATE ON feedback "
    "BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END",
)
_NAMES = ", ".join(_COLUMNS)
# The names in these statements are constants.
_INSERT = f"INSERT INTO feedback ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608
_INSERT += "ON CONFLICT (id) DO NOTHING"
_SELECT = f"SELECT {_NAMES} FROM feedback"  # noqa: S608
_FILE_FIX = "Give the path of another store."


class StoreFullError(OpsError):
    """The disk is full: nothing was stored."""


class ConflictError(OpsError):
    """Another record with the same id is already stored."""


def default_store() -> Path:
    """Return the path of the user's store, which need not exist: next to the folder of the runs."""
    return user_folder() / STORE_FILE


class Deletion(NamedTuple):
    """Result of a deletion.

    Attributes:
        records: number of deleted records.
        are_texts_gone: whether their texts are overwritten. If not, another process was reading them.
    """

    records: int
    are_texts_gone: bool


class FeedbackStore:
    """A store of feedback. Each call opens the database and closes it again.

    Args:
        file: path of the database.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def create(self) -> None:
        """Create the database if it does not exist, and check that it can be written.

        Raises:
            OpsError: the file is not a store of this version, or cannot be written.
        """
        _create_private_folder(self.file.parent)
        lock = self.file.with_name(f".{self.file.name}.lock")
        with _explained(self.file), file_lock(lock, TIMEOUT_S):
            if self.file.exists():
                _require_private_file(self.file)
                with _reading(self.file) as database:
                    is_new = _is_empty(database)
                    if not is_new:
                        _require_version(database, self.file)
            else:
                os.close(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
                is_new = True
            with _connected(self.file) as database:
                if is_new:
                    _create_tables(database)
                database.execute("BEGIN IMMEDIATE")  # fails if the file is read-only
                database.execute("ROLLBACK")

    def add(self, record: Feedback) -> bool:
        """Store a record. It is on disk when this function returns.

        Args:
            record: the feedback, without secrets.

        Returns:
            Whether the record is new. A record that was sent before is not stored again.

        Raises:
            ConflictError: another record has its id.
            StoreFullError: the disk is full.
            OpsError: the store does not exist, or cannot be written.
        """
        with self._writing() as database:
            if database.execute(_INSERT, _row(record)).rowcount:
                return True
            stored = next(_select(database, {"id": record.id}))
        if replace(stored, time=record.time) != record:
            fix = "Give each piece of feedback an id of its own."
            raise ConflictError(f"other feedback with the id {record.id} is already stored", fix)
        return False

    def records(
        self,
        *,
        kind: str | None = None,
        flow: str | None = None,
        conversation: str | None = None,
        since: str | None = None,
    ) -> list[Feedback]:
        """Return the records in the order in which they were stored.

        Args:
            kind: only records of this kind.
            flow: only records of the flow of this name.
            conversation: only records of this conversation.
            since: only records of this time or later, as `utc_text` writes it.

        Raises:
            OpsError: the store does not exist, or cannot be read.
        """
        equal = {"kind": kind, "flow": flow, "conversation": conversation}
        _require_file(self.file)
        with _explained(self.file), _reading(self.file) as database:
            _require_version(database, self.file)
            return list(_select(database, equal, since))

    def delete_conversation(self, conversation: str) -> Deletion:
        """Delete the records of a conversation, and overwrite their texts in the file.

        Raises:
            OpsError: the store does not exist, or cannot be written.
        """
        delete = "DELETE FROM feedback WHERE conversation = ?"
        with self._writing() as database:
            count = database.execute(delete, (conversation,)).rowcount
        with _explained(self.file), _connected(self.file) as database:
            # Removes the texts from the log too, unless another process is still reading them.
            is_busy = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        return Deletion(count, are_texts_gone=not is_busy)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the database inside a transaction, which is complete or undone when the block ends."""
        _require_file(self.file)
        with _explained(self.file):
            with _reading(self.file) as database:
                _require_version(database, self.file)
            with _connected(self.file) as database:
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                except BaseException:
                    with suppress(sqlite3.Error):  # after some errors, SQLite has ended it already
                        database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")


# -- files -----------------------------------------------------------------------------------------


def _create_private_folder(folder: Path) -> None:
    """Create the folder of a store. An existing folder stays as it is, except the user's own."""
    if folder == user_folder():
        private_folder(folder, "Set PHI3_HOME to a folder that only you can open.")
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OpsError(f"cannot create {folder}: {error.strerror}", _FILE_FIX) from error


def _require_file(file: Path) -> None:
    if not file.exists():
        fix = "Start phi3 serve with --feedback, or give the path of a store with --store."
        raise OpsError(f"the feedback store {file} does not exist", fix)
    if not stat.S_ISREG(file.stat().st_mode):
        raise OpsError(f"{file} is not a feedback store: it is not a file", _FILE_FIX)


def _require_private_file(file: Path) -> None:
    _require_file(file)
    status = file.stat()
    if hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & 0o077):
        fix = f"Run chmod 600 {file}, or give the path of another store."
        raise OpsError(f"other users can open the feedback store {file}", fix)


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the operating system into an OpsError."""
    try:
        yield
    except sqlite3.Error as error:
        if "disk is full" in str(error):
            fix = "Free some space, and try again."
            raise StoreFullError(f"the disk of the feedback store {file} is full", fix) from error
        if "not a database" in str(error):
            raise OpsError(f"{file} is not a feedback store", _FILE_FIX) from error
        what = f"the feedback store {file} cannot be used: {error}"
        raise OpsError(what, "Check its permissions and its disk.") from error
    except FeedbackFieldError as error:
        raise OpsError(f"the feedback store {file} is damaged: {error}") from error
    except OSError as error:
        what = f"the feedback store {file} cannot be used: {error.strerror or error}"
        raise OpsError(what, _FILE_FIX) from error


# -- the database ----------------------------------------------------------------------------------


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection that cannot change the file."""
    uri = f"{file.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S)) as database:
        yield database


@contextmanager
def _connected(file: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection whose transactions are on disk when they end; it begins none by itself."""
    uri = f"{file.absolute().as_uri()}?mode=rw"
    connect = sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S, isolation_level=None)
    with closing(connect) as database:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA secure_delete = ON")
        yield database


def _create_tables(database: sqlite3.Connection) -> None:
    columns = ", ".join(f"{name} {_column_type(name)}" for name in _COLUMNS)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        database.execute(statement.format(columns=columns))
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute("COMMIT")


def _column_type(name: str) -> str:
    return _TYPES.get(name) or ("TEXT" if name in _OPTIONAL else "TEXT NOT NULL")


def _is_empty(database: sqlite3.Connection) -> bool:
    """Return whether a database has no tables: its process was killed before it created them."""
    return not _pragma(database, "schema_version")


def _require_version(database: sqlite3.Connection, file: Path) -> None:
    """Raise OpsError if a database is not a store that this version reads."""
    if _pragma(database, "application_id") != APPLICATION_ID:
        raise OpsError(f"{file} is not a feedback store", _FILE_FIX)
    version = _pragma(database, "user_version")
    if version > VERSION:
        what = f"the feedback store {file} has version {version}; this phi3 reads version {VERSION}"
        raise OpsError(what, "Install a newer phi3. The file was not changed.")


def _pragma(database: sqlite3.Connection, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


def _select(
    database: sqlite3.Connection, equal: dict[str, str | None], since: str | None = None
) -> Iterator[Feedback]:
    """Yield the records whose columns have the given values, in the order of their addition."""
    conditions = {f"{name} = ?": value for name, value in equal.items() if value is not None}
    if since is not None:
        conditions["time >= ?"] = since
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    values = tuple(conditions.values())
    for row in database.execute(f"{_SELECT}{where} ORDER BY position", values):
        yield _record(row)


def _row(record: Feedback) -> tuple[Any, ...]:
    content = record.to_json()
    content["history"] = json.dumps(content["history"], ensure_ascii=False)
    return tuple(content[name] for name in _COLUMNS)


def _record(row: Sequence[Any]) -> Feedback:
    content = dict(zip(_COLUMNS, row, strict=True))
    try:
        history = json.loads(content["history"])
    except (TypeError, ValueError, RecursionError) as error:
        raise FeedbackFieldError("history", "is not JSON") from error
    return Feedback.from_json({**content, "history": history})
