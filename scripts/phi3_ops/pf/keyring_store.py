"""A keyring for machines without one, so that Prompt flow can encrypt its connections there.

It is registered under the entry point group `keyring.backends`. Its priority is below that of every real
keyring (Keychain, Secret Service, Credential Locker), so it is used only if the machine has none, for
example on a server or in a container. The secrets are in one file next to Prompt flow's store, which only
its owner can read. If the environment variable PHI3_KEYRING (`{"service/user": "secret"}`) is set, they
are read from it instead; it is read-only and is meant for places where no file may contain a secret.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keyring.backend import KeyringBackend
from keyring.errors import KeyringError, PasswordDeleteError, PasswordSetError

from ..files import file_lock

KEYRING_VARIABLE = "PHI3_KEYRING"
FILE_NAME = "phi3-keyring.json"
LOCK_NAME = "phi3-keyring.lock"
_TEMPORARY = re.compile(re.escape(FILE_NAME) + r"[a-z0-9_]{8}")  # the names that mkstemp makes


class OwnerOnlyFileKeyring(KeyringBackend):  # type: ignore[misc]
    """A keyring backend that keeps its secrets in a file of mode 0600."""

    priority = 0.1

    @property
    def path(self) -> Path:
        """The file with the secrets."""
        home = os.environ.get("PF_HOME_DIRECTORY") or Path.home() / ".promptflow"
        return Path(home).expanduser() / FILE_NAME

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        if KEYRING_VARIABLE in os.environ:
            raise PasswordSetError(f"{KEYRING_VARIABLE} is set, and it is read-only")
        try:
            with self._locked():
                self._write({**self._read(), f"{service}/{username}": password})
        except OSError as error:
            raise PasswordSetError(f"cannot write {self.path}: {_reason(error)}") from error

    def delete_password(self, service: str, username: str) -> None:
        if KEYRING_VARIABLE in os.environ:
            raise PasswordDeleteError(f"{KEYRING_VARIABLE} is set, and it is read-only")
        try:
            with self._locked():
                entries = self._read()
                if entries.pop(f"{service}/{username}", None) is None:
                    raise PasswordDeleteError(f"the entry {service}/{username} does not exist")
                self._write(entries)
        except OSError as error:
            raise PasswordDeleteError(f"cannot write {self.path}: {_reason(error)}") from error

    def _read(self) -> dict[str, Any]:
        try:
            text = os.environ.get(KEYRING_VARIABLE) or self.path.read_text(encoding="utf-8")
            return dict(json.loads(text))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, RecursionError):  # their texts contain the file's
            raise KeyringError(f"{self.path} is damaged; move it away") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing the file between reading and writing it."""
        with suppress(FileExistsError):
            self.path.parent.mkdir(mode=0o700, parents=True)
        with file_lock(self.path.with_name(LOCK_NAME)):
            self._delete_temporary_files()
            yield

    def _delete_temporary_files(self) -> None:
        """Delete the temporary files of killed processes. Nobody else writes while the lock is held."""
        for path in self.path.parent.glob(f"{FILE_NAME}*"):
            if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                path.unlink(missing_ok=True)

    def _write(self, entries: dict[str, Any]) -> None:
        # mkstemp creates the file with mode 0600, and the rename replaces the old file atomically.
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=FILE_NAME)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entries, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
