"""Names a process in a run's properties, to find out later whether it still runs."""

from __future__ import annotations

import os


def describe_this_process() -> str:
    """Return the id and the start time of this process."""
    import psutil

    return f"{os.getpid()} {psutil.Process().create_time():.0f}"


def process_is_running(description: str) -> bool:
    """Return whether a process still runs; another process that has its id now does not count.

    Args:
        description: the result of `describe_this_process` in that process.
    """
    import psutil

    process_id, _, started = description.partition(" ")
    try:
        return f"{psutil.Process(int(process_id)).create_time():.0f}" == started
    except (ValueError, psutil.Error):
        return False
