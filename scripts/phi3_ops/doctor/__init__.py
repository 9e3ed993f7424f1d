"""`phi3 doctor`: check what each way of use needs, and report how to fix what is missing.

Packages and other rooms are imported inside the checks only, because the command must also run if they
are missing. This room may import `training`, `chat`, `runs` and every room below them.
"""

from __future__ import annotations

from .checks import CHECKS, WAYS, CheckContext
from .rehearsal import REHEARSAL
from .runner import FAIL, CheckResult, failed_checks, run_checks

__all__ = [
    "CHECKS",
    "CheckContext",
    "CheckResult",
    "FAIL",
    "REHEARSAL",
    "WAYS",
    "failed_checks",
    "run_checks",
]
