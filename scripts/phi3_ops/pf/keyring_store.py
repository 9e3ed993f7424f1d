"""A keyring for machines that have none, so that prompt flow can encrypt its connections there.

Registered under the entry point group `keyring.backends`. Its priority is below that of every real
keyring (Keychain, Secret Service, Credential Locker), so it serves only where there is none, as on a
server or in a container. Secrets lie in one file that only its owner can read, beside prompt flow's
own store; or in the environment variable PHI3_KEYRING (`{"service/user": "secret"}`), which is read
only, for places where no file may hold one.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError, PasswordSetError

KEYRING_VARIABLE = "PHI3_KEYRING"
FILE_NAME = "phi3-keyring.json"


class OwnerOnlyFileKeyring(KeyringBackend):  # type: ignore[misc]
    """Secrets in a file of mode 0600."""

    priority = 0.1

    @property
    def path(self) -> Path:
        home = os.environ.get("PF_HOME_DIRECTORY") or Path.home() / ".promptflow"
        return Path(home).expanduser() / FILE_NAME

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        if KEYRING_VARIABLE in os.environ:
            raise PasswordSetError(f"{KEYRING_VARIABLE} is set, and the environment is read only")
        self._write({**self._read(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        entries = self._read()
        if entries.pop(f"{service}/{username}", None) is None:
            raise PasswordDeleteError("there is no such entry")
        self._write(entries)

    def _read(self) -> dict[str, Any]:
        try:
            text = os.environ.get(KEYRING_VARIABLE) or self.path.read_text(encoding="utf-8")
            return dict(json.loads(text))
        except FileNotFoundError:
            return {}

    def _write(self, entries: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes the file 0600 from its first moment; the rename makes the change whole.
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=FILE_NAME)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(entries, file)
        os.replace(name, self.path)
