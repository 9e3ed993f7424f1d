"""Find and stop trainings on this machine, for example one whose command was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import paths

STOP_S = 60.0  # time in which train.py may write a checkpoint before it is killed


def stop_trainings(out: Path, timeout_s: float = STOP_S) -> bool:
    """Stop every train.py that writes to a folder, and return whether one was running.

    Args:
        out: output folder of the training.
        timeout_s: seconds until a process that does not end is killed.
    """
    import psutil

    processes = [process for process in psutil.process_iter() if _writes_to(process, out)]
    for process in processes:
        process.terminate()
    _, alive = psutil.wait_procs(processes, timeout_s)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout_s)
    return bool(processes)


def _writes_to(process: Any, out: Path) -> bool:
    """Return whether a process is a train.py of this package with that output folder."""
    import psutil

    try:
        words = process.cmdline()
        if str(paths.TRAINING / "train.py") not in words or "--output-dir" not in words:
            return False
        folder = words[words.index("--output-dir") + 1]
        return Path(process.cwd(), folder).resolve() == out.resolve()
    except (psutil.Error, OSError, IndexError):
        return False
