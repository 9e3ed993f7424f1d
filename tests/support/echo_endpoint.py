"""An endpoint that answers at once what it was asked, for tests of what stands around an endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "echo-key"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


class EchoServer(ThreadingHTTPServer):
    """Speaks the chat contract. A question `fail` is a 400, `crash` a 500; `requests` keeps the bodies.

    A streamed answer comes word by word, the last word only once `may_finish` is set: so a test can
    prove that the first one arrived before.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.may_finish = threading.Event()
        self.waited_in_vain = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/score"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EchoServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(body)
        if self.headers["authorization"] != f"Bearer {KEY}":
            return self._answer(401, {"error": {"message": "wrong key"}})
        if not isinstance(body["input_data"], dict):
            return self._answer(400, {"error": {"message": "only the chat contract here"}})
        question = body["input_data"]["input_string"][-1]["content"]
        if question == "fail":
            return self._answer(400, {"error": {"message": "told to fail"}})
        if question == "crash":
            return self._answer(500, {"error": {"message": "told to crash"}})
        if body["input_data"].get("parameters", {}).get("stream"):
            return self._stream(question.split())
        return self._answer(200, {"output": question, "usage": USAGE})

    def _stream(self, words: list[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for place, word in enumerate(words):
            if place == len(words) - 1:
                self.server.waited_in_vain |= not self.server.may_finish.wait(20)
            self.wfile.write(f"data: {json.dumps({'output': word})}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _answer(self, status: int, payload: dict[str, Any]) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def echo_endpoint() -> Iterator[EchoServer]:
    """A running server on a free loopback port."""
    with EchoServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
