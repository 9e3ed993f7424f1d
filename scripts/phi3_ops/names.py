"""One rule for the names of runs, connections, deployments, endpoints, flows and files from outside.

A name becomes part of a path, of a URL or of a command line. So it is never a path itself, and it does
not start with a dot or a dash.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from .errors import OpsError

LONGEST = 128
RULE = f"1 to {LONGEST} letters (A-Z), digits, `-`, `_` and `.`, not beginning with `-` or `.`"
PATTERN = rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{LONGEST - 1}}}"
_NAME = re.compile(PATTERN)
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


def is_name(text: object) -> bool:
    """Return whether a value is a valid name."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def require_name(text: object, field: str) -> str:
    """Return a name that came from outside.

    Args:
        text: the name.
        field: what it names and where it was read, for the error.

    Raises:
        OpsError: it is not a valid name.
    """
    if isinstance(text, str) and is_name(text):
        return text
    raise OpsError(f"{field}: {_quoted(text)} is not a valid name", f"Use {RULE}.")


def name_argument(text: str) -> str:
    """Parse a name for argparse."""
    if is_name(text):
        return text
    raise argparse.ArgumentTypeError(f"{_quoted(text)} is not a valid name; use {RULE}")


def require_file_name(text: str, field: str) -> str:
    """Return the name of a file or folder that came from outside: one part of a path, not a path.

    Args:
        text: the name; unlike other names, it may start with a dot and contain spaces.
        field: what it names and where it was read, for the error.

    Raises:
        OpsError: it leads to another folder, or contains control characters.
    """
    parts = {PurePosixPath(text).name, PureWindowsPath(text).name}
    if parts == {text} and text not in ("", ".", "..") and text.isprintable():
        return text
    raise OpsError(f"{field}: {_quoted(text)} is not the name of a file", "Rename it.")


def require_inside(path: Path, folder: Path, field: str) -> None:
    """Check that a path that was made of names from outside is inside a folder.

    Raises:
        OpsError: it is not.
    """
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise OpsError(f"{field}: {_quoted(str(path))} is outside the folder", "Rename it.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the known word nearest to a mistyped one; empty if none is near."""
    import difflib

    # The dashes of options would make any two of them similar.
    names = {name.lstrip("-"): name for name in known}
    matches = difflib.get_close_matches(word.lstrip("-"), list(names), n=1)
    return f"; did you mean {names[matches[0]]}?" if matches else ""


def safe_name(text: str) -> str:
    """Return a text as a valid name: other characters become `-`, and a long text is cut."""
    return _NOT_IN_NAME.sub("-", text).lstrip(".-")[:LONGEST] or "unnamed"


def _quoted(text: object) -> str:
    """Return the start of a text in quotes, as ASCII: it can contain anything."""
    shown = ascii(text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"
