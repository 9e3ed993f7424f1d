"""Failures on purpose, on the real network connection: those that a client of an Azure endpoint meets.

The middleware fails requests by the rules of a file, or by the rule in the header of a request; see
`fault_rules`. The faults themselves are in `fault_table`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .fault_rules import HEADER, FaultError, Rule, read_header
from .fault_table import FAULTS, Answer, Wire, refused_answer, send_answer

MAX_READ = 10 * 2**20  # bytes of a request that are examined
MAX_HEADERS = 1000  # number of header texts that are counted separately


class _RuleCounter:
    """A rule, the number of requests that matched it, and the number of those that failed."""

    def __init__(self, rule: Rule):
        self.rule = rule
        self._matched = 0
        self._failed = 0

    def must_fail(self, method: str, path: str, streams: bool) -> bool:
        """Count a request, and return whether it must fail."""
        rule = self.rule
        matches = path == rule.path if rule.path else method == "POST"
        if not matches or (FAULTS[rule.fault].streams_only and not streams):
            return False
        if rule.times is not None and self._failed >= rule.times:
            return False
        self._matched += 1
        fails = self._matched % rule.every == 0
        self._failed += fails
        return fails


class FaultMiddleware:
    """ASGI middleware that fails requests by rules and by the fault header.

    Args:
        app: the endpoint.
        rules: applied in their order to requests without the header.
    """

    def __init__(self, app: Any, rules: Sequence[Rule]):
        self._app = app
        self._rules = [_RuleCounter(rule) for rule in rules]
        self._headers: dict[str, _RuleCounter] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, receive = await _peek(receive)
        try:
            rule = self._rule_for(scope, _asks_to_stream(body))
        except FaultError as error:
            refusal = refused_answer(400, "BadFault", str(error)).canned(400, 0)
            await send_answer(Wire(scope, receive, send), refusal, 0)
            return
        if rule is None:
            await self._app(scope, receive, send)
            return
        fault = FAULTS[rule.fault]
        seconds = fault.seconds if rule.seconds is None else rule.seconds
        if fault.status is not None:
            answer = fault.canned(fault.status, seconds)
        else:
            answer = await self._healthy_answer(scope, receive)
            if fault.change and answer.status == 200:
                answer.body = fault.change(answer.body, rule.mib)
        await fault.deliver(Wire(scope, receive, send), answer, seconds)

    def _rule_for(self, scope: Any, streams: bool) -> Rule | None:
        """Return the first rule by which a request must fail. Raises FaultError for a wrong header."""
        text = dict(scope["headers"]).get(HEADER.encode(), b"").decode("latin-1")
        counters = [self._header_counter(text)] if text else self._rules
        for counter in counters:
            if counter.must_fail(scope["method"], scope["path"], streams):
                return counter.rule
        return None

    def _header_counter(self, text: str) -> _RuleCounter:
        if text not in self._headers:
            self._headers[text] = _RuleCounter(read_header(text))
            if len(self._headers) > MAX_HEADERS:
                del self._headers[next(iter(self._headers))]
        return self._headers[text]

    async def _healthy_answer(self, scope: Any, receive: Any) -> Answer:
        """Return the answer of the endpoint itself."""
        answer = Answer(500, [], b"")

        async def collect(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = (h for h in message["headers"] if h[0].lower() != b"content-length")
                answer.status, answer.headers = message["status"], list(headers)
            else:
                answer.body += message.get("body", b"")

        await self._app(scope, receive, collect)
        return answer


async def _peek(receive: Any) -> tuple[bytes, Any]:
    """Return the body of a request (or its beginning), and a `receive` that repeats its messages."""
    messages: list[Any] = []
    body = b""
    while True:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > MAX_READ:
            break

    async def receive_again() -> Any:
        return messages.pop(0) if messages else await receive()

    return body, receive_again


def _asks_to_stream(body: bytes) -> bool:
    try:
        payload = json.loads(body)
        data = payload.get("input_data")
        settings: Any = data.get("parameters") if isinstance(data, dict) else payload
        return bool(settings.get("stream") is True)
    except (ValueError, AttributeError, RecursionError):
        return False
