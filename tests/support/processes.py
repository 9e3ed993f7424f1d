"""Run the product's commands as a user does, and find processes that they leave behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

BIN = Path(sys.executable).parent


def phi3(*words: Any, env: dict[str, str] | None = None, **kw: Any) -> subprocess.CompletedProcess:
    """Run `phi3 …` to its end."""
    return _run("phi3", words, env, kw)


def pf(*words: Any, env: dict[str, str] | None = None, **kw: Any) -> subprocess.CompletedProcess:
    """Run `pf …` to its end."""
    return _run("pf", words, env, kw)


def _run(program: str, words: Any, env: Any, kw: Any) -> subprocess.CompletedProcess:
    import os

    return subprocess.run(
        [BIN / program, *map(str, words)],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=kw.pop("timeout", 300),
        **kw,
    )


def processes_naming(text: Path | str) -> list[psutil.Process]:
    """Return the processes with this text on their command line, except this one and its parents."""
    own = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    matches = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid not in own and str(text) in " ".join(process.info["cmdline"] or []):
            matches.append(process)
    return matches
