"""The one error that a command ends with: what, where, what to do."""

from __future__ import annotations


class OpsError(Exception):
    """A command cannot go on; its text is the one line that the user reads.

    Args:
        what: what is wrong, and where (a file, a line, a field).
        fix: what to do about it.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what.rstrip('.')}. {fix}".strip() if fix else what)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
