"""Signals: they stop the run wherever they arrive, and during training after a step."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import stopping
from training_run import TRAINING

PROGRAM = """
import signal, sys, time
import stopping

class Signals:
    def __del__(self):
        signal.raise_signal({number})

class Sleeps:
    def __del__(self):
        time.sleep(1)

stopping.install_handlers()
try:
    Signals()
    Sleeps()  # the signal is lost here once more
    time.sleep(600)
except stopping.Stopped as stopped:
    sys.exit(128 + stopped.number)
"""


def run_program(program: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=TRAINING, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_del_is_not_lost(number):
    finished = run_program(PROGRAM.format(number=int(number)))
    assert (finished.returncode, finished.stderr) == (128 + number, "")


def test_other_errors_within_a_del_are_printed():
    finished = run_program(
        "import stopping\nclass A:\n  def __del__(self): 1 / 0\nstopping.install_handlers()\nA()"
    )
    assert finished.returncode == 0
    assert "ZeroDivisionError" in finished.stderr


def deliver(number: int) -> None:
    """Do what the signal would: a real one could end the worker that runs the tests.

    Real signals are sent to processes of their own, as above.
    """
    handler = signal.getsignal(number)
    if handler is not signal.SIG_IGN:
        handler(number, None)


@pytest.fixture
def handlers(monkeypatch):
    """The handlers are installed, and afterwards everything is as before; returns a clock."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    clock = [100.0]
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    stopping.install_handlers()
    yield clock
    for number, handler in before.items():
        signal.signal(number, handler)


def test_outside_of_the_training_a_signal_stops_at_once_and_further_ones_are_ignored(handlers):
    with pytest.raises(stopping.Stopped) as caught:
        deliver(signal.SIGTERM)
    assert caught.value.number == signal.SIGTERM
    deliver(signal.SIGINT)


def test_the_first_signal_is_deferred_to_the_end_of_the_step(handlers):
    finished_step = False
    with pytest.raises(stopping.Stopped) as caught, stopping.defer_first_signal():
        assert stopping.pending_signal() is None
        deliver(signal.SIGINT)
        assert stopping.pending_signal() == signal.SIGINT
        finished_step = True
    assert finished_step and caught.value.number == signal.SIGINT


def test_a_repeated_signal_is_ignored_and_a_later_one_stops_at_once(handlers):
    with pytest.raises(stopping.Stopped) as caught, stopping.defer_first_signal():
        deliver(signal.SIGINT)
        handlers[0] += stopping.REPEAT_SECONDS / 2
        deliver(signal.SIGTERM)
        handlers[0] += stopping.REPEAT_SECONDS
        deliver(signal.SIGTERM)
        raise AssertionError("the later signal did not stop the block")
    assert caught.value.number == signal.SIGTERM


def test_a_block_without_a_signal_ends_normally(handlers):
    with stopping.defer_first_signal():
        pass
    assert stopping.pending_signal() is None


def test_signals_are_ignored_in_a_short_block_only(handlers):
    with stopping.ignore_signals():
        deliver(signal.SIGTERM)
    with pytest.raises(stopping.Stopped):
        deliver(signal.SIGTERM)
