"""Fixtures of sweeps: an endpoint that answers by the rules of its request, and the files of a sweep."""

from __future__ import annotations

import json
import secrets
import threading
from http.server import ThreadingHTTPServer

import pytest
import yaml

from loopback import JsonHandler, running
from phi3_ops.pf.connections import delete_connection, save_connection

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
HANG_S = 60  # a limit for what must not hang, never a measurement


class RuleServer(ThreadingHTTPServer):
    """Speaks the chat contract, and answers `right` or `wrong`.

    A question `N` is answered right if N is below the number in the system prompt (without one, below 4).
    The system prompt or question `fail` gets a 400.

    Attributes:
        answered: system prompt (or "") and question of each answered request.
        denied_after: number of answers after which every request gets a 401, or None.
        held_after: number of answers after which requests wait for `release`, or None.
        held: whether a request waits.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answered = []
        self.denied_after = None
        self.held_after = None
        self.held = threading.Event()
        self.release = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/score"


class _Handler(JsonHandler):
    server: RuleServer

    def do_POST(self):
        messages = self.read_body()["input_data"]["input_string"]
        server, count = self.server, len(self.server.answered)
        if server.denied_after is not None and count >= server.denied_after:
            return self.answer(401, {"error": {"message": "the key has expired"}})
        if server.held_after is not None and count >= server.held_after:
            server.held.set()
            server.release.wait(HANG_S)
            return None
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        question = messages[-1]["content"]
        if "fail" in (system, question):
            return self.answer(400, {"error": {"message": "told to fail"}})
        server.answered.append((system, question))
        text = "right" if int(question) < int(system or 4) else "wrong"
        return self.answer(200, {"output": text, "usage": USAGE})


@pytest.fixture
def server():
    """The endpoint, with the connections `cells` and `cells2`."""
    with running(server := RuleServer()):
        for name in ("cells", "cells2"):
            save_connection(name, {"endpoint": server.url, "contract": "chat"}, "key")
        yield server
        server.release.set()
        for name in ("cells", "cells2"):
            delete_connection(name)


@pytest.fixture
def write_sweep(tmp_path):
    """Return a function that writes the file of a sweep and its data, and returns the file's path.

    Its fields replace those of a sweep of two prompts over 12 questions; None leaves a field out.
    """
    name = f"trial-{secrets.token_hex(4)}"  # ports return, and with them the fingerprints of cells

    def write(*, questions=range(12), **fields):
        rows = [{"question": str(text), "ground_truth": "right"} for text in questions]
        (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        content = {
            "name": name,
            "flow": "qa",
            "data": "data.jsonl",
            "columns": {"input_data": "${data.question}"},
            "prompts": {"plain": None, "good": {"inputs": {"answer.system_prompt": "12"}}},
            "connections": ["cells"],
            "metrics": ["exact_match"],
            **fields,
        }
        content = {name: value for name, value in content.items() if value is not None}
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    return write
