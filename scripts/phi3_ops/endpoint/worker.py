"""The other end of `endpoint_container`: scoring code and model, in a process of their own.

    python -m phi3_ops.endpoint.worker CODE_DIR MODEL_DIR THREADS

Lines of JSON come in on standard input and go out on standard output:

    in   {"id": 7, "body": "…"}                   a request; the body's bytes as Latin-1
         {"id": 7}                                nobody waits for it any more
    out  {"ready": "phi3"}                        the model answers, under this name
         {"failed": "…"}                          it cannot be loaded, and why
         {"id": 7, "status": 200, "text": "…"}    an answer in one piece
         {"id": 7, "status": 200}                 a stream begins
         {"id": 7, "text": "…"}                   a piece of it
         {"id": 7, "end": true}                   its end
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

INSTALL = "pip install 'phi3-promptflow[serve]'"
FAILED = {"message": "The scoring code failed.", "type": "server_error", "param": None, "code": 500}
log = logging.getLogger("phi3.endpoint")


class Worker:
    """Answers requests in threads.

    Args:
        scoring: score.py, imported.
        scorer: what its `load` gave.
        send: takes one message to the other side; called by one thread at a time.
        threads: requests that are worked on at once; the others wait their turn.
    """

    def __init__(self, scoring: Any, scorer: Any, send: Callable[[Any], None], threads: int):
        self._scoring = scoring
        self._scorer = scorer
        self._write = send
        self._pool = ThreadPoolExecutor(threads, "request")
        self._lock = threading.Lock()
        self._cancelled: dict[int, threading.Event] = {}  # of what waits or runs

    def ready(self) -> None:
        """Say that the model answers: from now on there may be messages."""
        self._send(ready=self._scorer.name)

    def take(self, line: bytes) -> None:
        """Take a message; returns at once."""
        message = json.loads(line)
        number, body = message["id"], message.get("body")
        if body is not None:
            self._cancelled[number] = threading.Event()
            self._pool.submit(self._work, number, body.encode("latin-1"))
        elif number in self._cancelled:
            self._cancelled[number].set()

    def _send(self, **message: Any) -> None:
        with self._lock:
            self._write(message)

    def _work(self, number: int, body: bytes) -> None:
        try:
            self._answer(number, body, self._cancelled[number])
        except OSError:
            pass  # the other side is gone
        except self._scoring.ScoringError as error:
            self._send(id=number, status=error.status, text=json.dumps(error.body))
        except Exception:
            log.exception("the scoring code failed")
            self._send(id=number, status=500, text=json.dumps({"error": FAILED}))
        finally:
            # A call that is cancelled just now finds nothing: that is as good.
            del self._cancelled[number]

    def _answer(self, number: int, body: bytes, cancelled: threading.Event) -> None:
        if cancelled.is_set():
            return
        payload = self._scoring.parse(body)
        if not self._scorer.wants_stream(payload):
            text = json.dumps(self._scorer.answer(payload), ensure_ascii=False)
            return self._send(id=number, status=200, text=text)
        events = self._scoring.sse(self._scorer.stream(payload))
        try:
            self._send(id=number, status=200)
            for event in events:
                if cancelled.is_set():
                    return None
                self._send(id=number, text=event)
        finally:
            events.close()  # ends the generation
        return self._send(id=number, end=True)


def import_scoring(folder: Path) -> ModuleType:
    """score.py, imported from its file as Azure's inference server does."""
    name = "phi3_score"
    spec = importlib.util.spec_from_file_location(name, folder / "score.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} holds no score.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def why(error: BaseException, model: Path) -> str:
    """One line on why the model cannot be served. Whatever the loaders raise is one thing to the user."""
    if isinstance(error, ImportError) and error.name:
        return f"{error.name} is missing: {INSTALL}"
    line = (str(error).splitlines() or [type(error).__name__])[0]
    if type(error).__name__ == "ModelNotFoundError":
        return line
    return f"the model in {model} cannot be loaded: {line}"


def main(code: Path, model: Path, threads: int) -> None:
    # What the scoring code prints must not get between the messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(message: Any) -> None:
        answers.write(json.dumps(message).encode() + b"\n")
        answers.flush()

    # The end comes from the endpoint, which closes standard input: a signal to all processes, such as
    # systemd's, must not take the model from under the requests that the endpoint still finishes.
    # (Ignoring them would be inherited by what the scoring code may start.)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    reader = _Reader()
    reader.start()
    try:
        scoring = import_scoring(code)
        scorer = scoring.load(model)
    except Exception as error:  # noqa: BLE001 - told to the other side
        send({"failed": why(error, model)})
        os._exit(1)  # a plain return would wait for the thread that reads
    reader.worker = Worker(scoring, scorer, send, threads)
    reader.worker.ready()
    reader.join()


class _Reader(threading.Thread):
    """Reads standard input, whose end ends the process, even in the middle of loading a model."""

    worker: Worker  # set before there is anything to read

    def __init__(self) -> None:
        super().__init__(name="input", daemon=True)

    def run(self) -> None:
        for line in sys.stdin.buffer:
            self.worker.take(line)
        _end()  # nobody is left to answer


def _end() -> None:
    """End this process, and what the scoring code may have started, such as a model's export."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
