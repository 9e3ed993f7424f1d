"""Text from outside is shown, and does not control the terminal."""

from __future__ import annotations

import ast
import html
import io
import logging

import pytest
from rich.table import Table
from rich.text import Text

from hostile_answers import TERMINAL_ATTACK, assert_harmless
from phi3_ops import paths, terminal
from phi3_ops.terminal import (
    VisibleHandler,
    VisibleLog,
    console,
    escape_invisible,
    one_line,
    print_text,
)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain\n\ttext é 你好 👩‍👧", "plain\n\ttext é 你好 👩‍👧"),
        ("a\u202eb\u2066c", "a‹U+202E›b‹U+2066›c"),
        ("\x1b[31m\x00\r", "‹U+001B›[31m‹U+0000›‹U+000D›"),
        ("\ud800", "‹U+D800›"),
        ({"k": ["ü", None]}, '{"k": ["ü", null]}'),
        (3, "3"),
    ],
)
def test_invisible_characters_are_replaced(text, escaped):
    assert escape_invisible(text) == escaped
    html.escape(escape_invisible(text)).encode()  # UTF-8 can hold it


def test_a_text_on_one_line_has_no_line_breaks():
    assert one_line("a\n\x1b[31m\r\n b") == "a ‹U+001B›[31m b"


@pytest.mark.parametrize("to_stderr", [False, True])
def test_printed_text(capsys, to_stderr):
    print_text(TERMINAL_ATTACK, to_stderr=to_stderr)
    captured = capsys.readouterr()
    assert_harmless(captured.err if to_stderr else captured.out)
    assert not (captured.out if to_stderr else captured.err)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_everything_that_a_console_prints(is_terminal):
    screen = console()
    screen.file = io.StringIO()
    screen._force_terminal = is_terminal
    screen.print(TERMINAL_ATTACK, soft_wrap=True, highlight=False)
    screen.print(Text(TERMINAL_ATTACK), soft_wrap=True)
    table = Table(title=TERMINAL_ATTACK)
    table.add_column(TERMINAL_ATTACK, no_wrap=True)
    table.add_row(TERMINAL_ATTACK)
    table.add_row(Text(TERMINAL_ATTACK))
    screen.width = 1000
    screen.print(table)
    printed = screen.file.getvalue()
    if not is_terminal:
        assert_harmless(printed)
    for sequence in ("\x1b[2J", "\x1b]52", "\x1b]8", "\x9b", "\x07", "\u202e", "\ud800"):
        assert sequence not in printed
    assert printed.count(":smile:") == 6


def test_a_console_that_is_not_a_terminal_is_wide():
    assert console().width == terminal.LOG_WIDTH


def test_a_followed_log_keeps_its_lines(capsys):
    log = VisibleLog()
    print(f"10 %\r20 %\r\n\t{TERMINAL_ATTACK}", file=log, flush=True)
    printed = capsys.readouterr().out
    assert_harmless(printed)
    assert printed.startswith("10 %\n20 %\n\t‹U+001B›[2J")
    assert log.writable()


def test_log_records(capsys):
    logger = logging.getLogger("phi3.test")
    handler = VisibleHandler()
    logger.addHandler(handler)
    logger.propagate = False  # pytest would record the surrogate, which xdist cannot send
    try:
        logger.warning("%s\nnext", TERMINAL_ATTACK)
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    printed = capsys.readouterr().err
    assert_harmless(printed)
    assert printed.endswith("\nnext\n")


@pytest.mark.finding(
    15,
    "the text of an endpoint contains escape sequences for the terminal",
    "every command prints control characters visibly",
)
def test_every_command_prints_through_this_module():
    for file in paths.PACKAGE.rglob("*.py"):
        if file.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                message = (
                    f"{file}, line {node.lineno}: use print_text or console of phi3_ops.terminal"
                )
                assert called not in ("print", "Console", "rich.print"), message
                assert not called.startswith(("sys.stdout.", "sys.stderr.write")), message


def test_one_is_singular():
    assert [terminal.counted(number, "row") for number in (0, 1, 2)] == [
        "0 rows",
        "1 row",
        "2 rows",
    ]
