"""The process of a `container`: it loads the scoring script and the model, and answers requests.

    python -m phi3_ops.endpoint.worker CODE_DIR MODEL_DIR THREADS

It reads lines of JSON from standard input and writes lines of JSON to standard output:

    in   {"id": 7, "body": "…"}                   a request; the bytes of the body as Latin-1
         {"id": 7}                                nobody waits for this request any more
    out  {"ready": "phi3", "runtime": "…"}        the model is loaded, has this name, and is run by this
         {"failed": "…"}                          the model cannot be loaded, with the reason
         {"id": 7, "status": 200, "text": "…"}    a complete answer
         {"id": 7, "status": 200}                 the begin of a stream
         {"id": 7, "text": "…"}                   a piece of the stream
         {"id": 7, "end": true}                   the end of the stream
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

from ..terminal import VisibleHandler
from .container import INSTALL

FAILED = {
    "message": "The scoring script failed.",
    "type": "server_error",
    "param": None,
    "code": 500,
}
log = logging.getLogger("phi3.endpoint")


class Worker:
    """Answers requests in threads.

    Args:
        scoring: the imported score.py.
        scorer: the return value of its `load`.
        send: sends one message to the container; called by one thread at a time.
        threads: number of requests that are processed at once; others wait.
    """

    def __init__(self, scoring: Any, scorer: Any, send: Callable[[Any], None], threads: int):
        self._scoring = scoring
        self._scorer = scorer
        self._write = send
        self._pool = ThreadPoolExecutor(threads, "request")
        self._lock = threading.Lock()
        self._cancelled: dict[int, threading.Event] = {}  # of the requests that wait or run

    def ready(self) -> None:
        """Report that the model is loaded. After that, the container may send requests."""
        self._send(ready=self._scorer.name, runtime=getattr(self._scorer, "runtime", ""))

    def take(self, line: bytes) -> None:
        """Accept a message of the container; return at once."""
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
            pass  # the container is gone
        except self._scoring.ScoringError as error:
            self._send(id=number, status=error.status, text=json.dumps(error.body))
        except Exception:
            log.exception("the scoring script failed")
            self._send(id=number, status=500, text=json.dumps({"error": FAILED}))
        finally:
            # A cancellation that arrives now is ignored by `take`.
            del self._cancelled[number]

    def _answer(self, number: int, body: bytes, cancelled: threading.Event) -> None:
        if cancelled.is_set():
            return
        payload = self._scoring.parse(body)
        if not self._scorer.wants_stream(payload):
            answer = self._scorer.answer(payload, cancelled.is_set)
            if cancelled.is_set():  # the answer was cut short
                return None
            text = json.dumps(answer, ensure_ascii=False)
            return self._send(id=number, status=200, text=text)
        events = self._scoring.sse(self._scorer.stream(payload, cancelled.is_set))
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
    """Import score.py from its file, as Azure's inference server does."""
    name = "phi3_score"
    spec = importlib.util.spec_from_file_location(name, folder / "score.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} does not contain a score.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_error(error: BaseException, model: Path) -> str:
    """Return one line that says why the model cannot be loaded."""
    if isinstance(error, ImportError) and error.name:
        return f"the package {error.name} is not installed. {INSTALL}"
    line = (str(error).splitlines() or [type(error).__name__])[0]
    if type(error).__name__ == "ModelNotFoundError":
        return line
    return f"the model in {model} cannot be loaded: {line}"


def main(code: Path, model: Path, threads: int) -> None:
    """Load a model and answer requests until standard input ends.

    Args:
        code: folder with score.py.
        model: model folder.
        threads: number of requests that are processed at once.
    """
    # Output that the scoring script prints must not get between the messages: it goes to standard error.
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(message: Any) -> None:
        messages.write(json.dumps(message).encode() + b"\n")
        messages.flush()

    # The endpoint ends this process by closing standard input. A signal to all processes, such as
    # systemd's, must not end the model before the endpoint has finished its requests. (Ignored signals,
    # in contrast to handled ones, would be inherited by processes that the scoring script starts.)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    reader = _Reader()
    reader.start()
    try:
        scoring = import_scoring(code)
        scorer = scoring.load(model)
    except Exception as error:  # noqa: BLE001 - the container gets the reason
        send({"failed": load_error(error, model)})
        os._exit(1)  # returning would wait for the reader
    reader.worker = Worker(scoring, scorer, send, threads)
    reader.worker.ready()
    reader.join()


class _Reader(threading.Thread):
    """Reads standard input. Its end ends the process, even while a model is being loaded."""

    worker: Worker  # set before the container sends the first request

    def __init__(self) -> None:
        super().__init__(name="input", daemon=True)

    def run(self) -> None:
        for line in sys.stdin.buffer:
            self.worker.take(line)
        _exit_with_children()  # nobody waits for answers any more


def _exit_with_children() -> None:
    """End this process and those that the scoring script started, such as the export of a model."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    logging.basicConfig(
        format="%(asctime)s %(message)s", level=logging.WARNING, handlers=[VisibleHandler()]
    )
    logging.getLogger("phi3.score").setLevel(logging.INFO)  # a line for an export, which takes long
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
