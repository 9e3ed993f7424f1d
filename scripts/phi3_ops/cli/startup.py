"""Settings of the `phi3` process: garbage collection and lost interrupts.

They apply to the whole process. So only the console script uses them, and not programs that call
`phi3_ops.cli.main` in a process of their own.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading

RESEND_S = 0.05  # seconds until a lost Ctrl-C is sent again
GC_THRESHOLDS = (100_000, 50, 100)


def prepare_process() -> None:
    """Collect garbage less often, and make sure that a Ctrl-C is not lost.

    Importing the libraries creates so many objects that a short command would spend half of its time on
    looking through them for garbage.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    sys.unraisablehook = _resend_lost_interrupt


def skip_final_collection() -> None:
    """Keep Python from looking through all objects once more when the process ends."""
    gc.freeze()


def _resend_lost_interrupt(unraisable: sys.UnraisableHookArgs) -> None:
    """Send a Ctrl-C again that arrived during a `__del__`: Python drops every exception raised there."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    timer = threading.Timer(RESEND_S, os.kill, [os.getpid(), signal.SIGINT])
    timer.daemon = True
    timer.start()
