"""An endpoint that streams what a test wrote for it, for tests of what a person sees."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG_S = 20  # a limit for what must not hang, never a measurement


class ScriptedServer(ThreadingHTTPServer):
    """Speaks the chat contract, in server-sent events, without looking at the key.

    A question is answered with itself, or with its text in `answers`, word by word; one that is named in
    `held` waits for `release` before its last word, or before its whole answer. `fail` is a 400, `break`
    breaks off after two words, `endless` ends when the client leaves, which sets `gone`.

    Attributes:
        requests: the bodies, in order.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, str] = {}
        self.held: set[str] = set()
        self.release = threading.Event()
        self.gone = threading.Event()
        self.requests: list[dict[str, Any]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # clients leave early here
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/score"

    def messages(self) -> list[str]:
        """What was said in the last request, by either side."""
        return [message["content"] for message in self.requests[-1]["input_data"]["input_string"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(body)
        question = body["input_data"]["input_string"][-1]["content"]
        if question == "fail":
            return self._whole(400, {"error": {"message": "told to fail"}})
        text = self.server.answers.get(question, question)
        if not body["input_data"].get("parameters", {}).get("stream"):
            if question in self.server.held:
                self.server.release.wait(HANG_S)
            return self._whole(200, {"output": text})
        self.close_connection = True
        try:
            return self._stream(question, text.split(" "))
        except OSError:
            self.server.gone.set()

    def _stream(self, question: str, words: list[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        if question == "endless":
            for number in range(HANG_S * 50):
                self._event(output=f"{number} ")
                time.sleep(0.02)
        for place, word in enumerate(words):
            if question == "break" and place == 0:
                self._event(output="half ")
                self._event(output="an")
                return
            last = place == len(words) - 1
            if last and question in self.server.held:
                self.server.release.wait(HANG_S)
            self._event(output=word if last else f"{word} ")
        usage = {"prompt_tokens": 11, "completion_tokens": len(words)}
        self._event(output="", finish_reason="stop", usage=usage)
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, **event: Any) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def _whole(self, status: int, payload: dict[str, Any]) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def scripted_endpoint() -> Iterator[ScriptedServer]:
    """A running server on a free loopback port."""
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()
