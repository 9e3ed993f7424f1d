"""Every fault of the local endpoint against the client: survived, or raised as exactly one error.

docs/faults.md shows the same table.
"""

from __future__ import annotations

import itertools
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pages import check_part, table
from phi3_ops.endpoint.fault_rules import HEADER
from phi3_ops.endpoint.fault_table import FAULTS
from phi3_tools import (
    AuthenticationError,
    BadAnswerError,
    BadRequestError,
    ConnectionLostError,
    DeploymentNotFoundError,
    EndpointTimeoutError,
    EndpointUnreachableError,
    Limits,
    ModelNotReadyError,
    Params,
    PermissionDeniedError,
    Phi3Client,
    Phi3Error,
    RateLimitedError,
    RequestTooLargeError,
    ScoringFailedError,
    ServerError,
)
from phi3_tools.client import calls
from phi3_tools.client.transport import Transport
from tiny_endpoint import HANG_S, KEY, running

ALWAYS = 99  # requests in a row that meet the fault
REFUSED = "connection-refused"  # not a fault of an endpoint, because no endpoint runs
UNANSWERED = (REFUSED, "reset", "slow-headers")  # no headers arrive, so there is no request id
PARAMS = Params(max_new_tokens=6, temperature=0)
LIMITS = Limits(read_timeout_s=20, deadline_s=60, max_answer_bytes=2**20)


@dataclass(frozen=True)
class Outcome:
    """Result of a call if the fault persists. A fault that ends before the last request is survived.

    error: the class that is raised, or None if the call is answered.
    requests: total number of requests. pieces: whether text arrived before the error.
    """

    error: type[Phi3Error] | None
    requests: int = 1
    pieces: bool = False


@dataclass(frozen=True)
class Row:
    """One fault, with the status and the message of its error."""

    fault: str
    plain: Outcome
    streamed: Outcome
    status: int | None = None
    message: str = ""
    options: str = ""
    limits: Limits = LIMITS
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.fault} {self.note}".strip()


def both(fault: str, error: type[Phi3Error], requests: int = 1, *expected: Any, **more: Any) -> Row:
    """Return the row of a fault with the same result for both kinds of call."""
    return Row(fault, Outcome(error, requests), Outcome(error, requests), *expected, **more)


def broken(fault: str, error: type[Phi3Error], plain: Outcome, *expected: Any) -> Row:
    """Return the row of a fault in the middle of an answer; a stream is then not repeated."""
    return Row(fault, plain, Outcome(error, pieces=True), *expected)


LOST = Outcome(ConnectionLostError, 4)
HEALTHY = Outcome(None)
BROKE = "the connection broke before the answer was complete"

ROWS = [
    both("401", AuthenticationError, 1, 401, "missing, wrong or expired"),
    both("403", PermissionDeniedError, 1, 403, "may not call the endpoint"),
    both("404-no-traffic", DeploymentNotFoundError, 8, 404, "traffic group could not be found"),
    both("404-retired", DeploymentNotFoundError, 1, 404, "was retired"),
    both("408", EndpointTimeoutError, 4, 408, "request_timeout_ms"),
    both("413", RequestTooLargeError, 1, 413, "too large"),
    Row(
        "424-400",
        Outcome(BadRequestError),
        Outcome(BadRequestError, 2),
        400,
        "424 around 400",
        note="(the chat contract asks once more, without `stream`)",
    ),
    both("424-429", RateLimitedError, 8, 429, "424 around 429"),
    both("424-500", ScoringFailedError, 3, 500, "424 around 500"),
    both("424-model-not-ready", ModelNotReadyError, 8, 503, "model_not_ready"),
    both("429", RateLimitedError, 8, 429, "in flight"),
    both("429-retry-after", RateLimitedError, 8, 429, "in flight", note="(says `Retry-After`)"),
    both("500", ServerError, 3, 500, "infrastructure"),
    both("502", ServerError, 3, 502, "the endpoint failed (502)"),
    both("503", ServerError, 8, 503, "the endpoint failed (503)"),
    both("504", ServerError, 3, 504, "the endpoint failed (504)"),
    both(REFUSED, EndpointUnreachableError, 3, None, "refused"),
    both("reset", ConnectionLostError, 4, None, "reset"),
    both("reset-after-headers", ConnectionLostError, 4, None, BROKE),
    broken("reset-mid-body", ConnectionLostError, LOST, None, BROKE),
    broken("close-mid-body", ConnectionLostError, LOST, None, BROKE),
    Row(
        "truncated-json",
        Outcome(BadAnswerError),
        Outcome(ConnectionLostError, pieces=True),
    ),
    both("not-json", BadAnswerError, 1, None, "not JSON"),
    both("error-in-200", ScoringFailedError, 3, None, "The engine failed"),
    both("empty-200", ScoringFailedError, 3, None, "gave no answer"),
    both(
        "slow-headers",
        EndpointTimeoutError,
        4,
        None,
        "no more data",
        options="seconds=1",
        limits=Limits(read_timeout_s=0.4, deadline_s=60),
        note="(longer than `read_timeout_s`)",
    ),
    Row("slow-body", HEALTHY, HEALTHY, options="seconds=0.2", note="(shorter than `deadline_s`)"),
    Row(
        "slow-body",
        Outcome(EndpointTimeoutError),
        Outcome(EndpointTimeoutError, pieces=True),
        message="within 0.4 s",
        options="seconds=1",
        limits=Limits(deadline_s=0.4),
        note="(longer than `deadline_s`)",
    ),
    Row("stream-cut", HEALTHY, Outcome(ConnectionLostError, pieces=True), message="broke off"),
    Row(
        "stream-error",
        HEALTHY,
        Outcome(ScoringFailedError, pieces=True),
        message="The engine failed",
    ),
    both(
        "oversized",
        BadAnswerError,
        1,
        None,
        "max_answer_bytes",
        options="mib=2",
        note="(longer than `max_answer_bytes`)",
    ),
]
NAMES = [row.name for row in ROWS]

# The kinds of calls: functions from a client to the pieces of an answer.
CALLS: dict[str, Callable[[Phi3Client], Iterator[str]]] = {
    "plain": lambda client: iter([client.chat("Hello", PARAMS).text]),
    "streamed": lambda client: client.stream("Hello", PARAMS),
}
# The path of each contract.
PATHS = {"chat": "/score", "openai": "/v1/chat/completions", "auto": "/score"}

_ids = itertools.count()


class FaultyTransport(Transport):
    """Adds the header that makes the endpoint produce a fault."""

    def __init__(self, url: str, row: Row, hits: int) -> None:
        super().__init__(url)
        self.sent = 0
        self._hits = hits
        self._nowhere = Transport(f"http://127.0.0.1:{free_port()}/score")
        self._refuses = row.fault == REFUSED
        self._fault = f"{row.fault}; n={hits}; id={next(_ids)}; {row.options}".strip("; ")

    def post(self, body: bytes, headers: Any, limits: Limits, deadline: Any) -> Any:
        self.sent += 1
        if not self._refuses:
            return super().post(body, {**headers, HEADER: self._fault}, limits, deadline)
        if self.sent <= self._hits:
            return self._nowhere.post(body, headers, limits, deadline)
        return super().post(body, headers, limits, deadline)

    def heal(self) -> None:
        """Send all further requests without a fault."""
        self._fault, self._hits = "", 0


class FaultyClient(Phi3Client):
    """A client whose requests go through a FaultyTransport."""

    faulty: FaultyTransport


@dataclass
class Result:
    """Result of a call."""

    pieces: list[str] = field(default_factory=list)
    error: Phi3Error | None = None


@pytest.fixture(scope="module")
def base(tiny_model_dir):
    with running(tiny_model_dir, faults=[]) as base:
        yield base


@pytest.fixture
def waits(monkeypatch):
    """The waits that the client chose between attempts; it waits 1 ms instead."""
    decided: list[float | None] = []
    decide = calls.next_wait_s

    def shortened(*args: Any) -> float | None:
        decided.append(decide(*args))
        return None if decided[-1] is None else 0.001

    monkeypatch.setattr(calls, "next_wait_s", shortened)
    return decided


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def client_for(base: str, row: Row, hits: int, contract: str = "chat") -> FaultyClient:
    url = f"{base}{PATHS[contract]}"
    connection = {"endpoint": url, "key": KEY, "contract": contract}
    client = FaultyClient.from_connection(connection, limits=row.limits)
    client.faulty = FaultyTransport(url, row, hits)
    client._session.transport = lambda contract: client.faulty
    return client


def ask(client: Phi3Client, kind: str) -> Result:
    """Run one call to its end, and fail if it takes longer than HANG_S."""
    result = Result()

    def call() -> None:
        try:
            result.pieces.extend(CALLS[kind](client))
        except Phi3Error as error:
            result.error = error

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(HANG_S)
    assert not thread.is_alive(), "the call hangs"
    return result


def assert_raised(result: Result, expected: Outcome, row: Row) -> None:
    """Assert the exact class, status, message, request id and hint, and that the key is nowhere."""
    error = result.error
    assert error is not None
    assert type(error) is expected.error
    assert error.status == row.status
    assert row.message in str(error)
    assert bool(error.request_id) == (row.fault not in UNANSWERED)
    assert error.hint in str(error)
    assert error.hint
    assert KEY not in "".join(traceback.format_exception(error)) + repr(vars(error))
    # `extend` keeps the pieces that came before the exception.
    assert bool("".join(result.pieces)) == expected.pieces


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_fault_is_survived_or_raised_as_one_error(base, waits, row, kind):
    for hits in (1, 2, ALWAYS):
        check_fault(base, row, kind, hits)


def check_fault(base: str, row: Row, kind: str, hits: int) -> None:
    """Assert the outcome of a call whose first `hits` requests meet the fault."""
    expected: Outcome = getattr(row, kind)
    with client_for(base, row, hits) as client:
        result = ask(client, kind)
        if expected.error is None:
            assert result.error is None
            assert client.faulty.sent == 1
        elif hits < expected.requests:
            assert result.error is None
            assert client.faulty.sent == hits + 1
        else:
            assert_raised(result, expected, row)
            assert client.faulty.sent == expected.requests
        if result.error is None:
            assert "".join(result.pieces)
        # A fault must not harm later calls, for example by an open connection.
        client.faulty.heal()
        assert ask(client, "plain").error is None


@pytest.mark.parametrize("contract", ["openai", "auto"])
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_every_contract_raises_the_same_error(base, waits, row, contract):
    row = replace(row, limits=replace(row.limits, max_attempts=2))  # their number is tested above
    for kind in CALLS:
        expected: Outcome = getattr(row, kind)
        with client_for(base, row, ALWAYS, contract) as client:
            result = ask(client, kind)
        if expected.error:
            assert_raised(result, expected, row)
        else:
            assert result.error is None


# A 400 is not a passing fault: it tells the client what the endpoint understands.
PASSING = [row for row in ROWS if row.plain.error is not BadRequestError]


@pytest.mark.parametrize("row", PASSING, ids=[row.name for row in PASSING])
def test_a_passing_fault_does_not_change_what_the_client_remembers(base, waits, row):
    """It remembers neither another contract than the likeliest nor that the endpoint cannot stream."""
    for kind in CALLS:
        with client_for(base, row, 1, "auto") as client:
            ask(client, kind)
            client.faulty.heal()
            assert len(ask(client, "streamed").pieces) > 1
            assert client.contract == "chat"


@pytest.mark.parametrize("kind", CALLS)
def test_the_client_waits_for_retry_after(base, waits, kind):
    row = next(row for row in ROWS if row.fault == "429-retry-after")
    with client_for(base, row, 2) as client:
        assert ask(client, kind).error is None
    assert len(waits) == 2
    assert all(1 <= wait <= 1.25 for wait in waits)


def test_every_fault_is_in_the_matrix():
    assert {row.fault for row in ROWS} == {*FAULTS, REFUSED}


# -- docs/faults.md --------------------------------------------------------------------------------


def outcome_text(outcome: Outcome) -> str:
    if outcome.error is None:
        return "answered"
    name = f"`{outcome.error.__name__}`"
    if outcome.pieces:
        return f"{name} after the text so far"
    if outcome.requests == 1:
        return f"{name}, not repeated"
    return f"answered, or {name} after {outcome.requests} requests"


def table_text() -> str:
    head = ["fault", "what the endpoint does", "plain call", "streamed call"]
    rows = []
    for row in ROWS:
        summary = FAULTS[row.fault].summary.rstrip(".") if row.fault in FAULTS else "nobody listens"
        plain, streamed = outcome_text(row.plain), outcome_text(row.streamed)
        rows.append(
            [
                f"`{row.fault}`",
                f"{summary} {row.note}".strip(),
                plain,
                "the same" if streamed == plain else streamed,
            ]
        )
    return table(head, rows)


def test_the_page_shows_this_table():
    check_part("faults.md", "matrix", table_text())
