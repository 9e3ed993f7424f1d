"""A search for keys in files that leave this machine: images and uploads."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from phi3_tools.client import SETTINGS_VARIABLES

from ..errors import OpsError
from ..pf import load_connection, pf_client

# A shorter value is not a key, and it would occur in many texts by chance.
SHORTEST_SECRET = 8
KEY_VARIABLES = (SETTINGS_VARIABLES["key"], "PHI3_ENDPOINT_KEY")


def refuse_secrets(folder: Path) -> None:
    """Search every file, including the members of zip archives, for the keys that this machine knows.

    Raises:
        OpsError: a file contains a key; the error names the file and the connection or variable.
    """
    owners = _known_secrets()
    for name, content in _contents(folder):
        for secret, owner in owners.items():
            if secret.encode() in content:
                fix = "Remove it from the file: the container gets it from its environment."
                raise OpsError(f"{name} contains {owner}", fix)


def _known_secrets() -> Mapping[str, str]:
    """Return the keys in the store and in the environment: key -> description of its owner."""
    owners: dict[str, str] = {}
    for variable in KEY_VARIABLES:
        if value := os.environ.get(variable):
            owners[value] = f"the value of {variable}"
    for listed in pf_client().connections.list(all_results=True):
        connection = load_connection(listed.name)
        secrets = dict(connection.secrets) if connection is not None else {}
        owners |= {value: f"the {key} of {listed.name}" for key, value in secrets.items() if value}
    return {secret: owner for secret, owner in owners.items() if len(secret) >= SHORTEST_SECRET}


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of every file and of every member of a zip archive."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    yield f"{name}: {member}", archive.read(member)
        elif path.is_file():
            yield name, path.read_bytes()
