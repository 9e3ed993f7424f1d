"""The settings of the `phi3` process: a Ctrl-C is not lost, and garbage is collected less often."""

from __future__ import annotations

import gc
import subprocess
import sys
from types import SimpleNamespace

import pytest

from phi3_ops.cli import startup
from phi3_ops.cli.startup import GC_THRESHOLDS, prepare_process, skip_final_collection


def test_a_ctrl_c_within_a_del_is_not_lost():
    """Python drops exceptions that are raised there."""
    program = """
import signal, sys, time, types
import phi3_ops.cli

class Signals:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def run(args):
    Signals()
    time.sleep(600)

sys.modules["phi3_ops.cli.doctor"] = types.SimpleNamespace(arguments=lambda parser: None, run=run)
sys.argv = ["phi3", "doctor"]
sys.exit(phi3_ops.cli.entry())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "phi3: interrupted\n")


@pytest.fixture
def restored():
    """The settings of this process come back after the test."""
    thresholds, hook = gc.get_threshold(), sys.unraisablehook
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    sys.unraisablehook = hook


def test_the_settings_of_the_process(restored):
    prepare_process()
    assert gc.get_threshold() == GC_THRESHOLDS
    assert sys.unraisablehook is startup._resend_lost_interrupt
    skip_final_collection()
    assert gc.get_freeze_count() > 0


def test_other_unraisable_errors_are_printed_as_before(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "__unraisablehook__", printed.append)
    unraisable = SimpleNamespace(exc_type=ValueError)
    startup._resend_lost_interrupt(unraisable)
    assert printed == [unraisable]


def test_main_alone_leaves_the_process_as_it_is():
    """A program that calls `main` keeps its own settings."""
    code = (
        "import gc, sys\nbefore = gc.get_threshold(), sys.unraisablehook\n"
        "from phi3_ops.cli import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "assert before == (gc.get_threshold(), sys.unraisablehook)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
