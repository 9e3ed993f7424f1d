"""`phi3 review` as a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import BIN

HANG_S = 120  # a limit for what must not hang, never a measurement


@dataclass
class ServedReview:
    """A page of a review: its URL, what was printed before, and the process."""

    url: str
    lines: list[str]
    process: subprocess.Popen[str]


@contextlib.contextmanager
def phi3_review(*words: Any, cwd: Path) -> Iterator[ServedReview]:
    """Run `phi3 review …` on a free port, and end it at the end."""
    command = [BIN / "phi3", "review", *map(str, words)]
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout
            lines = [process.stdout.readline().rstrip("\n") for _ in range(3)]
            assert lines[1].startswith("open http://"), lines
            yield ServedReview(lines[1].split()[1], lines, process)
        finally:
            process.kill()
            process.wait(HANG_S)
