"""Errors that a command ends with: what is wrong and where, and what to do about it."""

from __future__ import annotations

import re
from typing import Protocol, runtime_checkable


@runtime_checkable
class ExplainedError(Protocol):
    """What every error of this project has, so that one place can print all of them.

    `OpsError` and `phi3_tools.Phi3Error` have it. They share no class, because `phi3_ops` also has to
    start where a requirement of `phi3_tools` is missing.

    Attributes:
        what: what is wrong, and where (a file, a line, a field).
        fix: what to do about it; may be empty.
    """

    what: str
    fix: str


class OpsError(Exception):
    """A command cannot go on. Its text is the one line that the user reads.

    Args:
        what: what is wrong, and where (a file, a line, a field).
        fix: what to do about it.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what.rstrip('.')}. {fix}".strip() if fix else what)
        self.what = what
        self.fix = fix


_USER_INFO = re.compile(r"(?<=://)[^/\s@'\"]*@")


def without_user_info(text: str) -> str:
    """Return a text without the user names and passwords of the URLs in it."""
    return _USER_INFO.sub("", text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its class if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
