"""Sends chat completions over HTTP, measures their times, and checks the number of tokens."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from .prompts import Messages
from .servers import Target

TOKENS = 64
TIMEOUT_S = 600


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        first_s: seconds until the first text; the whole time if the server cannot stream.
        total_s: seconds until the end.
        prompt_tokens: number of prompt tokens that the server reports; None if it does not.
    """

    first_s: float
    total_s: float
    prompt_tokens: int | None


@dataclass(frozen=True)
class Burst:
    """Requests that several clients sent at the same moment.

    Attributes:
        tokens_per_s: generated tokens of all clients divided by the time until the last answer.
        answers: one per request.
    """

    tokens_per_s: float
    answers: list[Answer]

    @property
    def first_s(self) -> float:
        return statistics.median(answer.first_s for answer in self.answers)

    @property
    def p50_s(self) -> float:
        return statistics.median(answer.total_s for answer in self.answers)


def burst(target: Target, prompts: Sequence[Messages]) -> Burst:
    """Send each prompt from a client of its own, all at the same moment."""
    answers: list[Answer] = []
    errors: list[Exception] = []
    barrier = threading.Barrier(len(prompts) + 1)

    def work(prompt: Messages) -> None:
        with closing(target.connect(TIMEOUT_S)) as connection:
            connection.connect()
            barrier.wait()
            try:
                answers.append(ask(target, connection, prompt))
            except Exception as error:  # noqa: BLE001 - it is raised in the main thread
                errors.append(error)

    threads = [threading.Thread(target=work, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if errors:
        raise errors[0]
    return Burst(len(prompts) * TOKENS / seconds, answers)


def ask(
    target: Target, connection: http.client.HTTPConnection, messages: Messages, tokens: int = TOKENS
) -> Answer:
    """Send one request.

    Raises:
        RuntimeError: the server answers with an error or with another number of tokens.
    """
    body = json.dumps(target.payload(messages, tokens)).encode()
    start = time.perf_counter()
    connection.request("POST", target.path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{target.name}: {response.status}: {response.read()[:500]!r}")
    if not target.streams:
        response.read()
        total_s = time.perf_counter() - start
        return Answer(total_s, total_s, None)
    first_s, usage = _read_stream(response, start)
    total_s = time.perf_counter() - start
    generated = usage.get("completion_tokens")
    if generated != tokens:
        raise RuntimeError(f"{target.name} generated {generated} tokens instead of {tokens}")
    return Answer(first_s or total_s, total_s, usage["prompt_tokens"])


def _read_stream(response: http.client.HTTPResponse, start: float) -> tuple[float, dict[str, Any]]:
    """Return the seconds until the first text, and the usage that the server reports at the end."""
    first_s = 0.0
    usage: dict[str, Any] = {}
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        usage = event.get("usage") or usage
        choices = event.get("choices")
        if choices and choices[0]["delta"].get("content"):
            first_s = first_s or time.perf_counter() - start
    return first_s, usage
