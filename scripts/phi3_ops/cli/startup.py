"""Settings of the `phi3` process: garbage collection, lost interrupts and closed standard streams.

They apply to the whole process. So only the console script uses them, and not programs that call
`phi3_ops.cli.main` in a process of their own.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from pathlib import Path

RESEND_S = 0.05  # seconds until a lost Ctrl-C is sent again
GC_THRESHOLDS = (100_000, 50, 100)


def prepare_process() -> None:
    """Collect garbage less often, replace closed streams, and make sure that a Ctrl-C is not lost.

    Importing the libraries creates so many objects that a short command would spend half of its time on
    looking through them for garbage.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    _replace_closed_streams()
    sys.unraisablehook = _resend_lost_interrupt


def skip_final_collection() -> None:
    """Keep Python from looking through all objects once more when the process ends."""
    gc.freeze()


def _replace_closed_streams() -> None:
    """Open the null device for each standard stream that is closed, as after `phi3 down <&-`.

    Python sets such a stream to None. The next file that the process opened would also get its number,
    so that child processes would read from it or write to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))


def require_home() -> None:
    """Raise OpsError if the user's home folder is unknown.

    Libraries then fail with errors of their own, or write into a folder named `~`.
    """
    try:
        Path.home()
    except RuntimeError as error:
        from ..errors import OpsError

        what = "the home folder is unknown: HOME is not set, and the system does not know the user"
        raise OpsError(what, "Set HOME to a folder that can be written.") from error


def _resend_lost_interrupt(unraisable: sys.UnraisableHookArgs) -> None:
    """Send a Ctrl-C again that arrived during a `__del__`: Python drops every exception raised there."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    timer = threading.Timer(RESEND_S, os.kill, [os.getpid(), signal.SIGINT])
    timer.daemon = True
    timer.start()
