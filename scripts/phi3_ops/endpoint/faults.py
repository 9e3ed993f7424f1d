"""Failures on purpose: what a client of an Azure endpoint has to survive, really on the wire.

The local endpoint fails by rules, a YAML list such as

    - fault: 429-retry-after    # a name in FAULTS (`phi3_ops.endpoint.fault_table`)
      times: 2                  # the first two requests that match, then healthy
    - fault: slow-body
      every: 10                 # each tenth request that matches
      path: /score              # without it: every POST
      seconds: 3

or request by request, by the header `x-phi3-fault: 503; n=2`. A header's count belongs to the
header's whole text: `503; n=2; id=my-test` has one of its own.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OpsError
from .fault_table import FAULTS, Answer, Wire, refused_answer, whole_answer

HEADER = "x-phi3-fault"
MAX_READ = 10 * 2**20  # bytes of a request that are looked at
MAX_HEADERS = 1000  # different header texts that are counted


class FaultError(OpsError):
    """A rule that cannot be used; the message says which and why, in one line."""


@dataclass(frozen=True)
class Rule:
    """When to fail, and how. `seconds` and `mib` (1 MiB = 2**20 bytes) count where a fault has it."""

    fault: str
    times: int | None = None
    every: int = 1
    path: str | None = None
    seconds: float | None = None
    mib: int = 16


# --- reading rules ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    kind: tuple[type, ...]
    needs: str
    low: float = 0
    high: float = math.inf


COUNT = _Field((int,), "a whole number from 1", 1)
FIELDS = {
    "fault": _Field((str, int), "a fault's name"),
    "times": COUNT,
    "every": COUNT,
    "path": _Field((str,), "a path such as /score"),
    "seconds": _Field((int, float), "a number of seconds from 0 to 600", 0, 600),
    "mib": _Field((int,), "a whole number of MiB from 1 to 256", 1, 256),
}


def load_fault_rules(path: Path) -> list[Rule]:
    """The rules in a YAML file. Raises FaultError that names the file and the field."""
    import yaml

    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise FaultError(f"{path} cannot be read: {line}") from error
    if not isinstance(entries, list):
        raise FaultError(f"{path} must be a list of rules, each with a fault")
    return [read_rule(entry, f"{path}: rule {at}") for at, entry in enumerate(entries, start=1)]


def read_rule(entry: Any, where: str) -> Rule:
    """One rule from plain data. Raises FaultError whose message starts with `where`."""
    if not isinstance(entry, dict) or "fault" not in entry:
        raise FaultError(f"{where} must be a mapping with a fault")
    for name, value in entry.items():
        row = FIELDS.get(name)
        if row is None:
            raise FaultError(f"{where}: {name} is unknown; there are {', '.join(FIELDS)}")
        wrong_kind = isinstance(value, bool) or not isinstance(value, row.kind)
        if wrong_kind or (not isinstance(value, str) and not row.low <= value <= row.high):
            raise FaultError(f"{where}: {name} must be {row.needs}, not {value!r}")
    name = str(entry["fault"])  # YAML reads 503 as a number
    if name not in FAULTS:
        near = difflib.get_close_matches(name, FAULTS, n=3, cutoff=0.4) or sorted(FAULTS)
        raise FaultError(f"{where}: there is no fault {name!r}; near it: {', '.join(near)}")
    return Rule(**{**entry, "fault": name})


def read_header(text: str) -> Rule:
    """The rule in an `x-phi3-fault` header. Raises FaultError."""
    name, *options = (part.strip() for part in text.split(";"))
    entry: dict[str, Any] = {"fault": name}
    for option in filter(None, options):
        key, _, value = (part.strip() for part in option.partition("="))
        if key != "id":
            entry["times" if key == "n" else key] = _literal(value)
    return read_rule(entry, HEADER)


def _literal(text: str) -> int | float | str:
    if re.fullmatch(r"\d{1,9}", text):
        return int(text)
    return float(text) if re.fullmatch(r"\d{0,9}\.\d{1,9}", text) else text


# --- the middleware ---------------------------------------------------------------------------


class _Counted:
    """A rule and how often it was met."""

    def __init__(self, rule: Rule):
        self.rule = rule
        self._seen = 0
        self._fired = 0

    def due(self, method: str, path: str, streams: bool) -> bool:
        """Count the request; whether it is to fail."""
        rule = self.rule
        matches = path == rule.path if rule.path else method == "POST"
        if not matches or (FAULTS[rule.fault].streams_only and not streams):
            return False
        if rule.times is not None and self._fired >= rule.times:
            return False
        self._seen += 1
        fires = self._seen % rule.every == 0
        self._fired += fires
        return fires


class FaultMiddleware:
    """ASGI middleware that fails requests by rules, and by the fault header."""

    def __init__(self, app: Any, rules: Sequence[Rule]):
        self._app = app
        self._rules = [_Counted(rule) for rule in rules]
        self._headers: dict[str, _Counted] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, receive = await _peek(receive)
        try:
            rule = self._due(scope, _asks_to_stream(body))
        except FaultError as error:
            refusal = refused_answer(400, "BadFault", str(error)).canned(400, 0)
            await whole_answer(Wire(scope, receive, send), refusal, 0)
            return
        if rule is None:
            await self._app(scope, receive, send)
            return
        fault = FAULTS[rule.fault]
        seconds = fault.seconds if rule.seconds is None else rule.seconds
        if fault.status is not None:
            answer = fault.canned(fault.status, seconds)
        else:
            answer = await self._healthy(scope, receive)
            if fault.change and answer.status == 200:
                answer.body = fault.change(answer.body, rule.mib)
        await fault.deliver(Wire(scope, receive, send), answer, seconds)

    def _due(self, scope: Any, streams: bool) -> Rule | None:
        text = dict(scope["headers"]).get(HEADER.encode(), b"").decode("latin-1")
        candidates = [self._counted(text)] if text else self._rules
        for counted in candidates:
            if counted.due(scope["method"], scope["path"], streams):
                return counted.rule
        return None

    def _counted(self, text: str) -> _Counted:
        if text not in self._headers:
            self._headers[text] = _Counted(read_header(text))
            if len(self._headers) > MAX_HEADERS:
                del self._headers[next(iter(self._headers))]
        return self._headers[text]

    async def _healthy(self, scope: Any, receive: Any) -> Answer:
        """What the endpoint would have answered."""
        answer = Answer(500, [], b"")

        async def collect(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = (h for h in message["headers"] if h[0].lower() != b"content-length")
                answer.status, answer.headers = message["status"], list(kept)
            else:
                answer.body += message.get("body", b"")

        await self._app(scope, receive, collect)
        return answer


async def _peek(receive: Any) -> tuple[bytes, Any]:
    """The request's body (its beginning, if it is large), and a receive that gives it again."""
    messages: list[Any] = []
    body = b""
    while True:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > MAX_READ:
            break

    async def again() -> Any:
        return messages.pop(0) if messages else await receive()

    return body, again


def _asks_to_stream(body: bytes) -> bool:
    try:
        payload = json.loads(body)
        data = payload.get("input_data")
        settings: Any = data.get("parameters") if isinstance(data, dict) else payload
        return bool(settings.get("stream") is True)
    except (ValueError, AttributeError, RecursionError):
        return False
