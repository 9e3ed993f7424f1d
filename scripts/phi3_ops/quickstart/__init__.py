"""`phi3 quickstart`: data, fine-tuning, endpoint, connection, chat and evaluation on one machine.

This room may import `training`, `chat`, `runs` and every room below them.
"""

from __future__ import annotations

from .removal import remove_quickstart
from .runner import run_quickstart
from .steps import QuickstartOptions
from .workdir import default_workdir

__all__ = ["QuickstartOptions", "default_workdir", "remove_quickstart", "run_quickstart"]
