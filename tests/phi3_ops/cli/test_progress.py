"""The progress of a batch: lines if standard error is not a terminal, a bar if it is one."""

from __future__ import annotations

import io
import sys

import pytest

from phi3_ops.cli import _progress
from phi3_ops.cli._progress import LINE_EVERY_S, ProgressDisplay, progress_display
from phi3_ops.runs.batch import BatchProgress


@pytest.fixture
def clock(monkeypatch):
    """Return a list with the present time, which a test can change."""
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_is_printed_now_and_then(clock, capsys):
    display = ProgressDisplay()
    display(BatchProgress(lines=100, done=1))
    assert capsys.readouterr().err == ""
    clock[0] += LINE_EVERY_S
    display(BatchProgress(lines=100, done=20, failed=2, tokens=1234, in_flight=16))
    display(BatchProgress(lines=100, done=21))
    assert capsys.readouterr().err == (
        "20/100 lines, 4.0 lines/s, 20 s left, 2 failed, 1,234 tokens, 16 in flight\n"
    )
    clock[0] += LINE_EVERY_S
    display(BatchProgress(lines=100, done=50))
    assert capsys.readouterr().err.startswith("50/100 lines, 5.0 lines/s, 10 s left")


def test_the_next_batch_has_a_rate_of_its_own(clock, capsys):
    display = ProgressDisplay()
    clock[0] += LINE_EVERY_S
    display(BatchProgress(lines=10, done=10))
    clock[0] += 100
    display(BatchProgress(lines=10, done=1))
    clock[0] += LINE_EVERY_S
    display(BatchProgress(lines=10, done=5))
    assert [line.split(", ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "2.0 lines/s",
        "1.0 lines/s",
    ]


def test_the_tokens_are_known_afterwards():
    display = ProgressDisplay()
    display(BatchProgress(lines=2, done=1, tokens=18))
    assert display.tokens == 18


def test_without_a_terminal_there_is_no_bar():
    with progress_display() as display:
        assert display._bar is None


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with progress_display() as display:
        display(BatchProgress(lines=4, done=1, failed=1, tokens=1234, in_flight=3))
        (task,) = display._bar.tasks
        assert (task.completed, task.total) == (1, 4)
        assert task.fields["failed"] == 1 and task.fields["in_flight"] == 3
        display(BatchProgress(lines=4, done=2))
        assert [task.completed for task in display._bar.tasks] == [2]
        display._bar.refresh()
    assert "0 in flight" in terminal.getvalue()


def test_a_stream_that_rich_does_not_take_for_a_terminal_has_no_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("FORCE_COLOR", "")
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    with progress_display() as display:
        assert display._bar is None
