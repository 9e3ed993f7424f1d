"""The parts that all fuzzers share: the time budget, the counts, and HTTP requests over sockets."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import random
import socket
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning, Unsatisfiable

HANG_S = 5.0  # no request may take longer
SHRINK_S = 20.0  # for the search for a smaller input, after the end of the budget
ROUND = 100  # inputs of one strategy before the next one has its turn
QUOTED = 2000  # characters of an input that are printed


class FailureFound(AssertionError):
    """An answer that must not occur.

    Args:
        kind: what is wrong, in few words; failures of one kind are counted together.
        input: the input that caused it, as a person can repeat it.
    """

    def __init__(self, kind: str, input: Any) -> None:
        super().__init__(kind)
        self.kind, self.input = kind, input if isinstance(input, str) else repr(input)


@dataclass
class Counts:
    """The counts of one run.

    Attributes:
        name: name of the fuzzer.
        seed: seed of the run.
        statuses: number of outcomes, by status or by kind.
        longest_s: longest time of an answer, in seconds.
        failures: kind -> its number and its smallest input.
    """

    name: str
    seed: int
    statuses: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, status: object, seconds: float = 0.0) -> None:
        """Count an outcome."""
        self.statuses[str(status)] += 1
        self.longest_s = max(self.longest_s, seconds)

    def fail(self, kind: str, input: str) -> None:
        """Count a failure, and keep the smallest input of its kind."""
        number, smallest = self.failures.get(kind, (0, input))
        self.failures[kind] = (number + 1, min(smallest, input, key=len))

    def finish(self, **facts: object) -> int:
        """Print the counts; return the exit status of the script."""
        total = sum(self.statuses.values())
        statuses = " ".join(f"{name}={number}" for name, number in sorted(self.statuses.items()))
        more = "".join(f", {name.replace('_', ' ')} {value}" for name, value in facts.items())
        print(
            f"{self.name}: seed {self.seed}, {total} requests ({statuses}), longest answer "
            f"{self.longest_s:.2f} s{more}, {len(self.failures)} kinds of failures"
        )
        for kind, (number, smallest) in self.failures.items():
            cut = "" if len(smallest) <= QUOTED else f"… ({len(smallest)} characters)"
            print(f"  FAILED {number} times: {kind}\n    smallest input: {smallest[:QUOTED]}{cut}")
        return 1 if self.failures else 0


@dataclass(frozen=True)
class Run:
    """The arguments of a fuzzer: its seconds and its seed."""

    seconds: float
    seed: int


def read_arguments(description: str | None) -> Run:
    """Read the command line and print the seed."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("seconds", type=float, nargs="?", default=60.0, help="time to run")
    parser.add_argument("--seed", type=int, help="number that repeats a run (default: random)")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    return Run(args.seconds, seed)


Check = tuple[st.SearchStrategy[Any], Callable[[Any], None]]


def explore(counts: Counts, run: Run, checks: Sequence[Check]) -> None:
    """Run the checks in turns with generated inputs until the time of the run is over.

    A check takes an input of its strategy and raises FailureFound. Each kind of failure is searched for a
    smaller input once. After that it is counted only, so that it does not hide others.
    """
    # Hypothesis warns of long inputs, and of a strategy that it has seen.
    warnings.simplefilter("ignore", HypothesisWarning)
    end = time.monotonic() + run.seconds
    known: set[str] = set()
    number = 0
    while time.monotonic() < end:
        for strategy, check in checks:
            number += 1
            _one_round(counts, run.seed + number, end, known, strategy, check)


def _one_round(
    counts: Counts,
    seed: int,
    end: float,
    known: set[str],
    strategy: st.SearchStrategy[Any],
    check: Callable[[Any], None],
) -> None:
    kinds: set[str] = set()

    @hypothesis_seed(seed)
    @settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(strategy)
    def search(value: Any) -> None:
        if time.monotonic() > end + (SHRINK_S if kinds else 0.0):
            return
        try:
            check(value)
        except FailureFound as failure:
            counts.fail(failure.kind, failure.input)
            if failure.kind not in known:
                kinds.add(failure.kind)
                raise

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Hypothesis prints the failing input
            search()
    except (FailureFound, Unsatisfiable):  # Schemathesis cannot break an operation without input
        pass
    except Exception as error:
        if not kinds:  # a mistake of the fuzzer itself
            counts.fail(f"the fuzzer failed: {type(error).__name__}: {error}"[:300], f"seed {seed}")
    known |= kinds


# --- requests over sockets --------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One HTTP request, byte by byte.

    Attributes:
        method: method.
        target: target of the request line.
        headers: names and values; Host and the framing are added.
        body: body.
        framing: `length`, `chunked`, or a wrong one: `short`, `long`, `both`, `broken`, `none`.
        host: value of the Host header.
    """

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    framing: str = "length"
    host: bytes = b"127.0.0.1"

    @property
    def is_complete(self) -> bool:
        """Whether the server knows where the request ends."""
        return self.framing in ("length", "chunked")

    def data(self) -> bytes:
        """Return the bytes of the request."""
        lines = [self.method.encode() + b" " + self.target + b" HTTP/1.1", b"host: " + self.host]
        lines += [name + b": " + value for name, value in self.headers]
        size, body = len(self.body), self.body
        if self.framing in ("chunked", "both", "broken"):
            lines.append(b"transfer-encoding: chunked")
            number = b"%x" % size if self.framing != "broken" else b"-5"
            body = number + b"\r\n" + body + b"\r\n0\r\n\r\n" if size else b"0\r\n\r\n"
        lengths = {"length": size, "both": size, "short": size // 2, "long": size + 10}
        if self.framing in lengths:
            lines.append(b"content-length: %d" % lengths[self.framing])
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    def __str__(self) -> str:
        return repr(self.data())


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        status: status, or None if the server closed the connection without one.
        headers: headers in lower case.
        body: the complete body.
        seconds: time until the end of the answer.
    """

    status: int | None
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


def send_request(port: int, request: Request) -> Answer:
    """Send a request and return its answer.

    Raises:
        FailureFound: the answer took longer than `HANG_S`.
    """
    return send_bytes(port, request.data(), request.method, half_close=not request.is_complete)


def send_bytes(port: int, data: bytes, method: str = "POST", *, half_close: bool = True) -> Answer:
    """Send bytes and return the answer; with `half_close`, end the sending direction after them."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), HANG_S) as sock:
        try:
            _send(sock, data, half_close)
            answer = _read_answer(sock, method, start)
        except TimeoutError:
            raise FailureFound("no answer within 5 s", data) from None
    if answer.seconds > HANG_S:
        raise FailureFound("the answer took more than 5 s", data)
    return answer


def _send(sock: socket.socket, data: bytes, half_close: bool) -> None:
    try:
        sock.sendall(data)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
    except TimeoutError:
        raise
    except OSError:
        pass  # the server has closed the connection: its answer can still be read


def _read_answer(sock: socket.socket, method: str, start: float) -> Answer:
    response = http.client.HTTPResponse(sock, method=method)
    try:
        response.begin()
        body = response.read()
    except (ConnectionError, http.client.HTTPException, ValueError):
        return Answer(None, {}, b"", time.monotonic() - start)
    pairs = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, pairs, body, time.monotonic() - start)


def leave_early(port: int, request: Request, received: int) -> None:
    """Send a request, read this many bytes of its answer at most, and break the connection."""
    with (
        socket.create_connection(("127.0.0.1", port), HANG_S) as sock,
        contextlib.suppress(OSError),
    ):
        sock.sendall(request.data())
        if received:
            sock.settimeout(0.3)
            sock.recv(received)
        # Without lingering, the server gets a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def require_text(answer: Answer, request: object) -> None:
    """Require that an answer's body can be read: JSON is JSON, and events contain JSON."""
    try:
        if answer.media_type == "application/json" and answer.body:
            json.loads(answer.body.decode("utf-8"))
        if answer.media_type == "text/event-stream":
            for data in event_data(answer.body):
                data == "[DONE]" or json.loads(data)
    except ValueError as error:
        raise FailureFound(f"the answer cannot be read: {error}"[:200], request) from None


def event_data(body: bytes) -> Iterator[str]:
    """Yield the data of server-sent events."""
    for line in body.decode("utf-8").split("\n"):
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


def port_of(url: str) -> int:
    """Return the port of a base URL."""
    return int(url.rstrip("/").rpartition(":")[2])


def main(fuzz: Callable[[Run], int], description: str | None) -> None:
    """Run a fuzzer as a script."""
    sys.exit(fuzz(read_arguments(description)))
