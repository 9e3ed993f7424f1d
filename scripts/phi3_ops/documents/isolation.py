"""Read documents in another process, so that one that takes too much time or memory is only listed.

Files from outside can be made to keep a parser busy for hours or to fill the memory. The process gets a
JSON line with the path of each document, and answers with a JSON line.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .readers import read_document
from .sections import Section, UnreadableError

CPU_LIMIT_S = 60  # for one document, so that a busy machine does not change what can be read
TIMEOUT_S = 600.0  # wall-clock limit for one document
MAX_MEMORY = 3 << 30  # bytes of address space of the process
_END_S = 0.5  # for a process that the system ends
_FAILED = "its reader failed; it may need too much memory"
# The modules come from where this process has them, not from the current folder.
_CODE = "import sys; sys.path[:] = sys.argv[1:]; from phi3_ops.documents.isolation import serve; serve()"


class IsolatedReader:
    """Reads documents in a process that is started when it is needed, and replaced if it fails.

    Args:
        timeout_s: maximum time for one document, in seconds.
        cpu_limit_s: maximum computing time for one document, in seconds; Windows has no such limit.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, cpu_limit_s: int = CPU_LIMIT_S) -> None:
        self._timeout_s, self._cpu_limit_s = timeout_s, cpu_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="documents")

    def __enter__(self) -> IsolatedReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()
        self._thread.shutdown()

    def read(self, path: Path) -> list[Section]:
        """Return the sections of a document.

        Raises:
            UnreadableError: as in `read_document`; or the document took too much time or memory.
        """
        process = self._process or self._start()
        request = json.dumps({"path": str(path.absolute()), "cpu_limit_s": self._cpu_limit_s})
        answer = self._thread.submit(_exchange, process, request.encode() + b"\n")
        try:
            line = answer.result(self._timeout_s)
        except FutureTimeoutError:
            self._stop(wait_s=0)
            raise UnreadableError(f"it was not read within {self._timeout_s:g} s") from None
        except BaseException:  # Ctrl-C
            self._stop(wait_s=0)
            raise
        if not line.endswith(b"\n"):
            is_slow = self._stop() == -getattr(signal, "SIGXCPU", 0)
            raise UnreadableError(
                f"it takes more than {self._cpu_limit_s} s" if is_slow else _FAILED
            )
        content = json.loads(line)
        if isinstance(content, str):
            raise UnreadableError(content)
        return [Section(**{**entry, "headings": tuple(entry["headings"])}) for entry in content]

    def _start(self) -> subprocess.Popen[bytes]:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        words = [sys.executable, "-c", _CODE, *filter(None, sys.path)]
        self._process = subprocess.Popen(words, stderr=subprocess.DEVNULL, **pipes)
        return self._process

    def _stop(self, wait_s: float = _END_S) -> int | None:
        """End the process, and return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)  # it may just be ending
        process.kill()
        code = process.wait()
        process.stdout.close()  # type: ignore[union-attr]  # likewise
        return code


def _exchange(process: subprocess.Popen[bytes], request: bytes) -> bytes:
    """Send a line to a process, and return the line that it answers; empty if the process has ended."""
    try:
        process.stdin.write(request)  # type: ignore[union-attr]  # it is a pipe
        process.stdin.flush()  # type: ignore[union-attr]
        return process.stdout.readline()  # type: ignore[union-attr]
    except (OSError, ValueError):  # the process has ended, or this side has closed the pipe
        return b""


# -- the other process -----------------------------------------------------------------------------


def serve() -> None:
    """Read the documents whose paths arrive on standard input, until it is closed."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints does not get among the answers
    if sys.platform != "win32":
        import resource

        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    with suppress(KeyboardInterrupt, OSError):
        for line in sys.stdin.buffer:
            request = json.loads(line)
            _limit_cpu_time(request["cpu_limit_s"])
            output.write(json.dumps(_result(Path(request["path"]))).encode() + b"\n")
            output.flush()


def _limit_cpu_time(seconds: int) -> None:
    """Let the system end this process if it computes for longer than that from now on."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        limit = math.ceil(time.process_time()) + seconds
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _result(path: Path) -> list[dict[str, Any]] | str:
    """Return the sections of a document, or the reason for which it cannot be read."""
    try:
        return [asdict(section) for section in read_document(path)]
    except UnreadableError as error:
        return str(error)
    except MemoryError:
        return "it needs too much memory"
    except RecursionError:
        return "it is nested too deeply"
    except Exception as error:  # a parser met something that it did not expect
        return f"it is broken: {type(error).__name__}"
