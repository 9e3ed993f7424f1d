"""An endpoint that answers each question with the question itself, at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from loopback import JsonHandler, running

KEY = "echo-key"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


class EchoServer(ThreadingHTTPServer):
    """Speaks the chat contract. The question `fail` gets a 400, and `crash` a 500.

    The question `wait` gets its answer after `released` is set.

    A streamed answer comes word by word. The last word is held back until `may_finish` is set, so that a
    test can prove that the first one arrived earlier. `requests` keeps the bodies.
    """

    daemon_threads = True

    request_queue_size = 128  # connections at once that wait to be accepted

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.may_finish = threading.Event()
        self.released = threading.Event()
        self.waited_in_vain = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/score"


class _Handler(JsonHandler):
    server: EchoServer

    def do_POST(self) -> None:
        body = self.read_body()
        self.server.requests.append(body)
        if self.headers["authorization"] != f"Bearer {KEY}":
            return self.answer(401, {"error": {"message": "wrong key"}})
        if not isinstance(body["input_data"], dict):
            return self.answer(400, {"error": {"message": "only the chat contract here"}})
        question = body["input_data"]["input_string"][-1]["content"]
        if question == "fail":
            return self.answer(400, {"error": {"message": "told to fail"}})
        if question == "wait":
            self.server.released.wait(60)
        if question == "crash":
            return self.answer(500, {"error": {"message": "told to crash"}})
        if body["input_data"].get("parameters", {}).get("stream"):
            return self._stream(question.split() or ["nothing"])
        return self.answer(200, {"output": question, "usage": USAGE})

    def _stream(self, words: list[str]) -> None:
        self.start_events()
        for index, word in enumerate(words):
            if index == len(words) - 1:
                self.server.waited_in_vain |= not self.server.may_finish.wait(20)
            self.event(output=word)
        self.wfile.write(b"data: [DONE]\n\n")


@contextmanager
def echo_endpoint() -> Iterator[EchoServer]:
    """Run a server on a free loopback port."""
    with running(server := EchoServer()):
        yield server
