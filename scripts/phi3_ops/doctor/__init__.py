"""`phi3 doctor`: check what each way of use needs, and say how to fix what is missing.

It imports packages and other rooms inside its checks only, because it must run where they are missing.
It may import `training`, `chat`, `runs` and every room below them.
"""

from __future__ import annotations

from .checks import CHECKS, WAYS, CheckContext
from .runner import FAIL, CheckResult, run_checks, usable_ways

__all__ = [
    "CHECKS",
    "CheckContext",
    "CheckResult",
    "FAIL",
    "WAYS",
    "run_checks",
    "usable_ways",
]
