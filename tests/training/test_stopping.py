"""A signal stops the training wherever in Python's own work it comes."""

import signal
import subprocess
import sys

import pytest

from phi3_ops import paths

PROGRAM = """
import signal, sys, time
import stopping

class Signals:
    def __del__(self):
        signal.raise_signal({number})

class Sleeps:
    def __del__(self):
        time.sleep(1)

stopping.listen()
try:
    Signals()
    Sleeps()  # it is lost here once more
    time.sleep(600)
except stopping.Stopped as stopped:
    sys.exit(128 + stopped.number)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_del_is_not_lost(number):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(number=int(number))],
        cwd=paths.TRAINING,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (128 + number, "")


def test_other_errors_of_a_del_are_told():
    program = "import stopping\nclass A:\n  def __del__(self): 1 / 0\nstopping.listen()\nA()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=paths.TRAINING,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
