"""A scripted judge behind a real endpoint. It judges the text between the marks, and nothing else.

It speaks the chat contract at `/score` and the OpenAI contract, with log probabilities, at `/v1` and, as
Azure OpenAI does, at `/openai`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from loopback import JsonHandler, running

KEY = "judge-key"
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
# Takes the messages and returns the text of the judge.
Judge = Callable[[list[dict[str, str]]], str]
_BLOCK = re.compile(r"^\[([a-zA-Z ]+) ([0-9a-f]{8})\]\n(.*?)\n\[end of \1 \2\]$", re.M | re.S)


class Crash(Exception):
    """A judge raises it to make the endpoint answer 500."""


def fields(prompt: str) -> dict[str, str]:
    """Return the texts between the marks, by name."""
    return {match[1]: match[3] for match in _BLOCK.finditer(prompt)}


def outside(prompt: str) -> str:
    """Return the text outside the marks."""
    return _BLOCK.sub("", prompt)


def fair(messages: list[dict[str, str]]) -> str:
    """5 for an answer that holds the reference (or the context), 3 for one that shares a word with it,
    else 1; asked to compare, the one with more of the reference."""
    texts = fields(messages[0]["content"])
    if "answer A" in texts:
        a, b = (_points(texts[name], texts["reference"]) for name in ("answer A", "answer B"))
        return json.dumps({"winner": "tie" if a == b else "A" if a > b else "B"})
    truth = texts.get("reference") or texts.get("context") or ""
    return json.dumps({"reason": "compared", "score": _points(texts["answer"], truth)})


def _points(answer: str, reference: str) -> int:
    if reference in answer:
        return 5
    return 3 if set(answer.split()) & set(reference.split()) else 1


class JudgeServer(ThreadingHTTPServer):
    """`requests` keeps the bodies, `paths` the paths.

    Attributes:
        judge: the function that judges; it may be changed between requests.
        digits: the probability of each digit of a score at the end; empty sends no probabilities.
        refuses: names of parameters that get a 400.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.judge: Judge = fair
        self.digits: dict[str, float] = {}
        self.refuses: set[str] = set()
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []

    def url(self, path: str = "/score") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(JsonHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = self.read_body()
        self.server.requests.append(body)
        self.server.paths.append(self.path)
        if f"Bearer {KEY}" not in (
            self.headers["authorization"],
            f"Bearer {self.headers['api-key']}",  # of Azure OpenAI's own client
        ):
            return self.answer(401, {"error": {"message": "wrong key"}})
        refused = self.server.refuses & set(body)
        if refused:
            return self.answer(400, {"error": {"message": f"unknown {refused}"}})
        openai = self.path.startswith(("/v1/", "/openai/"))
        if not openai and not isinstance(body["input_data"], dict):
            return self.answer(400, {"error": {"message": "only the chat contract here"}})
        messages = body["messages"] if openai else body["input_data"]["input_string"]
        try:
            text = self.server.judge(messages)
        except Crash as error:
            return self.answer(500, {"error": {"message": str(error)}})
        if not openai:
            return self.answer(200, {"output": text, "usage": USAGE})
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        if body.get("logprobs") and self.server.digits:
            choice["logprobs"] = {"content": logprobs(text, self.server.digits)}
        return self.answer(200, {"choices": [choice], "usage": USAGE})


def logprobs(text: str, digits: dict[str, float]) -> list[dict[str, Any]]:
    """Return log probabilities as vLLM does, one token per word, space or sign, digits as in `digits`."""
    tokens = re.findall(r"[A-Za-z]+|[0-9]|\s+|.", text)
    return [
        {
            "token": token,
            "logprob": -0.1,
            "bytes": list(token.encode()),
            "top_logprobs": [
                {"token": t, "logprob": math.log(p)}
                for t, p in (digits if token.isdigit() else {token: 0.9}).items()
            ],
        }
        for token in tokens
    ]


@contextmanager
def judge_endpoint() -> Iterator[JudgeServer]:
    """Run a server on a free loopback port."""
    with running(server := JudgeServer()):
        yield server
