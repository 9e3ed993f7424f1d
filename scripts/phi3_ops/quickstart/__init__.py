"""`phi3 quickstart`: data, fine-tuning, endpoint, connection, chat and evaluation on one machine.

This room may import `training`, `chat`, `runs` and every room below them.
"""

from __future__ import annotations

from .runner import remove_quickstart, run_quickstart
from .steps import QuickstartOptions

__all__ = ["QuickstartOptions", "remove_quickstart", "run_quickstart"]
