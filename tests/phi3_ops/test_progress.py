"""Progress of long steps: lines with the time left, and waits with the time so far."""

from __future__ import annotations

import io
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from phi3_ops import progress
from phi3_ops.progress import LINE_EVERY_S, Elapsed, ProgressLines, time_text, waiting
from polling import wait_until


@pytest.fixture
def clock(monkeypatch):
    """Return a list with the present time, which a test can change."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (3900, "1 h 5 min")],
)
def test_a_duration(seconds, text):
    assert time_text(seconds) == text


def test_lines_have_the_time_left(clock, capsys):
    lines = ProgressLines("downloaded", "MB", 10**6)
    lines(10**6, 5 * 10**6)
    clock[0] += LINE_EVERY_S
    lines(2 * 10**6, 5 * 10**6)
    lines(3 * 10**6, 5 * 10**6)
    clock[0] += LINE_EVERY_S
    lines(5 * 10**6, 5 * 10**6)
    assert capsys.readouterr().err.splitlines() == [
        "downloaded 2 of 5 MB, 8 s left",
        "downloaded 5 of 5 MB",
    ]


def test_a_wait_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "WAIT_LINE_EVERY_S", 0.01)
    printed = threading.Event()
    monkeypatch.setattr(progress, "print_text", lambda text, to_stderr: printed.set())
    with waiting(Console(file=io.StringIO()), "create endpoint e", "3 to 10 min"):
        assert printed.wait(30)


def test_a_wait_on_a_terminal(clock):
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100)
    with waiting(console, "create endpoint e", "3 to 10 min"):
        clock[0] += 70
        wait_until(
            lambda: "create endpoint e (1 min 10 s, usually 3 to 10 min)" in output.getvalue()
        )


def test_a_text_from_outside_stays_one_line():
    assert str(Elapsed("name\n\x1b[2J")).startswith("name ‹U+001B›[2J (0 s")
