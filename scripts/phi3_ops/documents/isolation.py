"""Read documents in another process, so that one that takes too much time or memory is only listed.

Files from outside can be made to keep a parser busy for hours or to fill the memory.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from .readers import read_document
from .sections import Section, UnreadableError

CPU_LIMIT_S = 60  # for one document, so that a busy machine does not change what can be read
TIMEOUT_S = 600.0  # likewise, for a document that waits for something
START_TIMEOUT_S = 600.0
MAX_MEMORY = 3 << 30  # bytes of address space of the process
_END_S = 0.5  # for a process that the system ends
_READY = "ready"
_FAILED = "its reader failed; it may need too much memory"


class IsolatedReader:
    """Reads documents in a process that is started when it is needed, and replaced if it fails.

    Args:
        timeout_s: maximum time for one document, in seconds.
        cpu_limit_s: maximum computing time for one document, in seconds; Windows has no such limit.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, cpu_limit_s: int = CPU_LIMIT_S) -> None:
        self._timeout_s, self._cpu_limit_s = timeout_s, cpu_limit_s
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> IsolatedReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def read(self, path: Path) -> list[Section]:
        """Return the sections of a document.

        Raises:
            UnreadableError: as in `read_document`; or the document took too much time or memory.
        """
        connection = self._connection or self._start()
        try:
            connection.send((path, self._cpu_limit_s))
            if not connection.poll(self._timeout_s):
                self._stop()
                raise UnreadableError(f"it was not read within {self._timeout_s:g} s")
            result = connection.recv()
        except (EOFError, OSError):
            is_slow = self._stop() == -getattr(signal, "SIGXCPU", 0)
            cause = f"it takes more than {self._cpu_limit_s} s" if is_slow else _FAILED
            raise UnreadableError(cause) from None
        if isinstance(result, str):
            raise UnreadableError(result)
        sections: list[Section] = result
        return sections

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        connection, other_end = context.Pipe()
        process = context.Process(target=_serve, args=(other_end,), daemon=True)
        process.start()
        other_end.close()
        self._process, self._connection = process, connection
        with suppress(EOFError, OSError):
            if connection.poll(START_TIMEOUT_S) and connection.recv() == _READY:
                return connection
        self._stop()
        raise UnreadableError("the process that reads documents cannot be started")

    def _stop(self) -> int | None:
        """End the process, and return its exit code."""
        if self._connection:
            self._connection.close()
        code = None
        if self._process:
            self._process.join(_END_S)  # it may just be ending
            self._process.kill()
            self._process.join()
            code = self._process.exitcode
        self._process = self._connection = None
        return code


def _serve(connection: Connection) -> None:
    """Read the documents whose paths arrive, until the other side closes the connection."""
    if sys.platform != "win32":
        import resource

        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    with suppress(EOFError, OSError, KeyboardInterrupt):
        connection.send(_READY)
        while True:
            path, cpu_limit_s = connection.recv()
            _limit_cpu_time(cpu_limit_s)
            connection.send(_result(path))


def _limit_cpu_time(seconds: int) -> None:
    """Let the system end this process if it computes for longer than that from now on."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        limit = math.ceil(time.process_time()) + seconds
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _result(path: Path) -> list[Section] | str:
    """Return the sections of a document, or the reason for which it cannot be read."""
    try:
        return read_document(path)
    except UnreadableError as error:
        return str(error)
    except MemoryError:
        return "it needs too much memory"
    except RecursionError:
        return "it is nested too deeply"
    except Exception as error:  # a parser met something that it did not expect
        return f"it is broken: {type(error).__name__}"
