"""Print text to the terminal so that text from outside cannot control it.

Answers of an endpoint, names on Azure, logs and data files may contain escape sequences, which clear the
screen, write the clipboard or disguise a link, and characters that hide text or change its direction. All
output of the commands goes through this module, which shows such characters as `‹U+001B›`.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import sys
import unicodedata
from typing import IO, Any

from .errors import OpsError

LOG_WIDTH = 200  # characters per line where the output is not a terminal
# Formatting characters that change the direction of text or hide it, and control characters to keep.
_HIDING = frozenset("\u200b\u200e\u200f\u061c\u2028\u2029\ufeff") | {
    chr(code) for span in ((0x202A, 0x202F), (0x2066, 0x206A)) for code in range(*span)
}
_ALLOWED = frozenset("\n\t")


def escape_invisible(value: object) -> str:
    """Return a value as text, with invisible characters replaced: `‹U+202E›`. Line breaks and tabs stay.

    Invisible characters are control characters and characters that change the direction of text.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"‹U+{ord(c):04X}›" if _is_hidden(c) else c for c in text)


def _is_hidden(character: str) -> bool:
    # Cs: half a surrogate pair, which JSON can contain and UTF-8 cannot.
    hidden = character in _HIDING or unicodedata.category(character) in ("Cc", "Cs")
    return hidden and character not in _ALLOWED


def is_blank(text: str) -> bool:
    """Return whether a text consists only of white space and invisible characters."""
    return all(character.isspace() or _is_hidden(character) for character in text)


def one_line(text: str) -> str:
    """Return a text as one line without invisible characters; white space becomes single spaces."""
    return escape_invisible(" ".join(text.split()))


def print_text(text: object = "", *, end: str = "\n", to_stderr: bool = False) -> None:
    """Print a text with its invisible characters escaped, and flush it."""
    stream = sys.stderr if to_stderr else sys.stdout
    print(escape_invisible(str(text)), end=end, file=stream, flush=True)


class VisibleHandler(logging.StreamHandler):  # type: ignore[type-arg]  # needs Python 3.11
    """A handler that writes log records to standard error with escaped characters."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_invisible(super().format(record))


class VisibleLog(io.TextIOBase):
    """A text stream for the log of a job; it writes to standard output with escaped characters.

    A carriage return, with which progress bars overwrite a line, becomes a line break.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stdout

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        lines = text.replace("\r\n", "\n").replace("\r", "\n")
        self._stream.write(escape_invisible(lines))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, for example `1 row` or `2 rows`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def agrees(question: str) -> bool:
    """Ask a question on the terminal, and return whether the answer is yes.

    Raises:
        OpsError: standard input is not a terminal.
    """
    if not sys.stdin.isatty():
        raise OpsError("cannot ask for confirmation without a terminal", "Give --yes.")
    try:
        answer = input(f"{escape_invisible(question)} [y/N] ")
    except EOFError:  # Ctrl-D
        print_text("")
        return False
    return answer.strip().lower() in ("y", "yes")


def console(*, to_stderr: bool = False) -> Any:
    """Return a rich Console that escapes invisible characters and does not interpret markup.

    In a file or a pipe it is wide, so that tables are not folded.
    """
    screen = _console_class()(stderr=to_stderr, markup=False, emoji=False)
    if not screen.is_terminal:
        screen.width = LOG_WIDTH
    return screen


@functools.cache
def _console_class() -> Any:
    from rich.console import Console
    from rich.segment import Segment

    class VisibleConsole(Console):
        """The strings are escaped before they are measured; `Text` objects when they are rendered."""

        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(escape_invisible(text), **options)

        def render(self, renderable: Any, options: Any = None) -> Any:
            for text, style, control in super().render(renderable, options):
                # Rich's own cursor movements are control segments.
                yield Segment(text if control else escape_invisible(text), style, control)

    return VisibleConsole
