"""An endpoint that answers by the rules of its request, with the connection `cells`; sweep files."""

from __future__ import annotations

import json
from http.server import ThreadingHTTPServer

import pytest
import yaml

from loopback import JsonHandler, running
from phi3_ops.pf.connections import delete_connection, save_connection

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


class RuleServer(ThreadingHTTPServer):
    """Speaks the chat contract, and answers `right` or `wrong`.

    A question `N` is answered right if N is below the number in the system prompt (without one, below 4).
    The question `fail` gets a 400. After `limit` requests, every request gets a 401. `requests` keeps the
    bodies.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = []
        self.limit = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/score"


class _Handler(JsonHandler):
    def do_POST(self):
        body = self.read_body()
        if self.server.limit is not None and len(self.server.requests) >= self.server.limit:
            return self.answer(401, {"error": {"message": "the key has expired"}})
        self.server.requests.append(body)
        messages = body["input_data"]["input_string"]
        question = messages[-1]["content"]
        if question.startswith("fail"):
            return self.answer(400, {"error": {"message": "told to fail"}})
        limit = int(messages[0]["content"]) if messages[0]["role"] == "system" else 4
        text = "right" if int(question) < limit else "wrong"
        return self.answer(200, {"output": text, "usage": USAGE})


@pytest.fixture
def server():
    with running(server := RuleServer()):
        for name in ("cells", "cells2"):
            save_connection(name, {"endpoint": server.url, "contract": "chat"}, "key")
        yield server
        for name in ("cells", "cells2"):
            delete_connection(name)


@pytest.fixture
def write_sweep(tmp_path):
    """Return a function that writes a sweep's file and its data, and returns the path of the file.

    Fields replace those of a sweep of two prompts; a field that is None is left out.
    """

    def write(*, questions=None, **fields):
        rows = [{"question": str(n), "ground_truth": "right"} for n in range(12)]
        if questions is not None:
            rows = [{"question": text, "ground_truth": "right"} for text in questions]
        (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        content = {
            "name": "trial",
            "flow": "qa",
            "data": "data.jsonl",
            "columns": {"input_data": "${data.question}"},
            "prompts": {"plain": None, "good": {"inputs": {"answer.system_prompt": "12"}}},
            "connections": ["cells"],
            "metrics": ["exact_match"],
            **fields,
        }
        file = tmp_path / "sweep.yaml"
        content = {name: value for name, value in content.items() if value is not None}
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    return write
