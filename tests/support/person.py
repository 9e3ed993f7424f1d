"""A new user: an empty home, an empty folder, and a terminal in which the product's commands run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from stores import make_store

BIN = Path(sys.executable).parent
MARK = "PHI3_TEST_PERSON"  # environment variable that finds all processes that a person started
TIMEOUT_S = 300


class BackgroundCommand:
    """A command that is still running, as in a second terminal.

    Attributes:
        process: the process, in a session of its own.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def output(self) -> str:
        """What the command has printed so far, on both streams."""
        return "".join(self._lines)

    def wait_for(self, text: str, timeout: float = 120) -> str:
        """Wait until the command has printed a text. Return its output so far."""
        end = time.monotonic() + timeout
        while text not in self.output:
            running = self._thread.is_alive()
            if text not in self.output and (not running or time.monotonic() > end):
                state = "is still running" if running else "has ended"
                raise AssertionError(
                    f"{text!r} was not printed; the command {state}:\n{self.output}"
                )
            time.sleep(0.05)
        return self.output

    def press_ctrl_c(self, timeout: float = 60) -> int:
        """Interrupt the command as a terminal does: with all its children. Return its exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait(timeout)

    def wait(self, timeout: float = TIMEOUT_S) -> int:
        """Wait until the command has ended and all its output is read. Return its exit code."""
        code = self.process.wait(timeout)
        self._thread.join(10)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self._lines.append(line)


@dataclass
class Person:
    """A user with a home and a folder in which the commands run.

    Attributes:
        home: HOME; at first it contains nothing but a Prompt flow store that calls no other host.
        folder: the current folder of all commands; at first it is empty.
        variables: further environment variables of all commands.
    """

    home: Path
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        make_store(self.home / ".promptflow")

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the commands. It has nothing of the tests' own stores and caches."""
        removed = ("PHI3_", "PF_", "HF_", "XDG_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        own = {"HOME": str(self.home), "PATH": path, "HF_HUB_OFFLINE": "1", MARK: self.mark}
        own["PF_TRACING_SKIP_LOCAL_SETUP"] = "true"
        return {**env, **own, **self.variables}

    def phi3(self, *words: Any, timeout: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Run `phi3 …` to its end."""
        return self._finish(["phi3", *map(str, words)], timeout)

    def shell(self, line: str, timeout: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Run a line of the documentation as it is printed, to its end."""
        return self._finish(["bash", "-c", line], timeout)

    def start(self, *words: Any) -> BackgroundCommand:
        """Start `phi3 …` in a second terminal."""
        process = subprocess.Popen(
            ["phi3", *map(str, words)],
            env={**self.environment, "PYTHONUNBUFFERED": "1"},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return BackgroundCommand(process)

    def processes(self) -> list[psutil.Process]:
        """Return all running processes that this person's commands started."""
        return [process for process in psutil.process_iter() if self._started(process)]

    def leave(self) -> None:
        """Kill all processes that this person's commands started."""
        for process in self.processes():
            try:
                process.kill()
                process.wait(10)
            except psutil.Error:
                continue

    def _started(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark
        except psutil.Error:  # it belongs to another user, or has ended
            return False

    def _finish(self, command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
