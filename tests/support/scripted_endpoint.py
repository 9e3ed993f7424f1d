"""An endpoint that streams the answers that a test prepared, for tests of the chat page."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from loopback import JsonHandler, running

HANG_S = 20  # a limit for what must not hang, never a measurement


class ScriptedServer(ThreadingHTTPServer):
    """Speaks the chat contract, in server-sent events, without looking at the key.

    A question is answered word by word, with its text in `answers` or else with the question itself. If
    the question is in `held`, the last word (or an answer in one piece) waits for `release`. The question
    `fail` gets a 400, `break` breaks off after two words, and `endless` streams until the client leaves,
    which sets `gone`.

    Attributes:
        requests: the bodies, in order.
        most_messages: with more messages, a request gets the 400 of a full context window.
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
        self.most_messages = 1000

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # clients leave early in these tests
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/score"

    def messages(self) -> list[str]:
        """Return the contents of all messages in the last request."""
        return [message["content"] for message in self.requests[-1]["input_data"]["input_string"]]


class _Handler(JsonHandler):
    server: ScriptedServer

    def do_POST(self) -> None:
        body = self.read_body()
        self.server.requests.append(body)
        messages = body["input_data"]["input_string"]
        question = messages[-1]["content"]
        if len(messages) > self.server.most_messages:
            text = (
                "the prompt has 300 tokens and max_new_tokens is 256: together 556, more than the "
            )
            return self.answer(400, {"error": {"message": text + "model's context window of 512"}})
        if question == "fail":
            return self.answer(400, {"error": {"message": "told to fail"}})
        text = self.server.answers.get(question, question)
        if not body["input_data"].get("parameters", {}).get("stream"):
            if question in self.server.held:
                self.server.release.wait(HANG_S)
            return self.answer(200, {"output": text})
        try:
            return self._stream(question, text.split(" "))
        except OSError:
            self.server.gone.set()

    def _stream(self, question: str, words: list[str]) -> None:
        self.start_events()
        if question == "endless":
            for number in range(HANG_S * 50):
                self.event(output=f"{number} ")
                time.sleep(0.02)
        for index, word in enumerate(words):
            if question == "break" and index == 0:
                self.event(output="half ")
                self.event(output="an")
                return
            last = index == len(words) - 1
            if last and question in self.server.held:
                self.server.release.wait(HANG_S)
            self.event(output=word if last else f"{word} ")
        usage = {"prompt_tokens": 11, "completion_tokens": len(words)}
        self.event(output="", finish_reason="stop", usage=usage)
        self.wfile.write(b"data: [DONE]\n\n")


@contextmanager
def scripted_endpoint() -> Iterator[ScriptedServer]:
    """Run a server on a free loopback port."""
    with running(server := ScriptedServer()):
        try:
            yield server
        finally:
            server.release.set()
