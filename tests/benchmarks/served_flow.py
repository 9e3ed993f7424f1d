"""Measures the answers per second of a served flow: `phi3 serve` and both engines of `pf flow serve`.

    python tests/benchmarks/served_flow.py --json bench/served_flow.json [--minutes 10]

32 clients ask flows/chat for whole answers and for streams. The endpoint runs in another process
and takes 0.2 s per answer, so at most 160 answers per second are possible. What the machine allows of
them shows when the same clients ask the endpoint itself. The three servers and the endpoint run all the
time and are called in turns. The clients open a new connection for each question. With
`--minutes`, clients then call `phi3 serve` for that time, and its memory is read after a fifth of
the time and at the end (resident set size, Linux). Exits with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
sys.path.insert(0, str(SUPPORT))

from bench_rows import Row, report  # noqa: E402
from slow_endpoint import slow_process  # noqa: E402

LATENCY_S = 0.2
CLIENTS = 32
IDEAL = CLIENTS / LATENCY_S
ROUNDS = 3
SECONDS = 5.0  # per server, kind of answer and round
DIRECT = "the endpoint itself"
OURS, FLASK, FASTAPI = "phi3 serve", "pf flow serve (flask)", "pf flow serve (fastapi)"
ACCEPT = {"whole": "application/json", "streamed": "text/event-stream"}
MIN_OF_DIRECT = 0.95
MAX_MEMORY_GROWTH = 1.1
PROBE = {"question": "Who founded Microsoft?", "chat_history": []}


@dataclass(frozen=True)
class Target:
    """Where the clients ask, and the header and body of a request for each kind of answer."""

    url: str
    headers: dict[str, str]
    bodies: dict[str, bytes]


def served(url: str) -> Target:
    return Target(url, {}, dict.fromkeys(ACCEPT, json.dumps(PROBE).encode()))


def direct(url: str) -> Target:
    messages = [{"role": "user", "content": PROBE["question"]}]

    def body(**parameters: bool) -> bytes:
        return json.dumps(
            {"input_data": {"input_string": messages, "parameters": parameters}}
        ).encode()

    bodies = {"whole": body(), "streamed": body(stream=True)}
    return Target(url, {"authorization": "Bearer a-key"}, bodies)


@contextlib.contextmanager
def servers(endpoint: str) -> Iterator[dict[str, Any]]:
    """Start the three servers. Yield their targets and that of the endpoint by name, and our process."""
    from served_flow import pf_serve, phi3_serve

    flow = ROOT / "flows" / "chat"
    with (
        phi3_serve() as ours,
        pf_serve(flow, "--engine", "flask") as flask,
        pf_serve(flow, "--engine", "fastapi") as fastapi,
    ):
        running = {OURS: ours, FLASK: flask, FASTAPI: fastapi}
        yield {
            "targets": {
                **{name: served(f"{server.url}/score") for name, server in running.items()},
                DIRECT: direct(endpoint),
            },
            "pid": ours.process.pid,
        }


async def ask(target: Target, kind: str) -> None:
    """Ask one question on a new connection. Raises ValueError if the answer is incomplete."""
    url, body = urlsplit(target.url), target.bodies[kind]
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    headers = {
        "host": url.netloc,
        "accept": ACCEPT[kind],
        "connection": "close",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **target.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"POST {url.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    answer = await reader.read()
    while piece := await reader.read():
        answer += piece
    writer.close()
    pieces = answer.count(b"Who founded Microsoft?")
    if b" 200 " not in answer.partition(b"\r\n")[0] or pieces != (4 if kind == "streamed" else 1):
        raise ValueError(f"no answer: {answer[:300]!r}")


async def rate(target: Target, kind: str, seconds: float) -> float:
    """Return the answers per second of all clients. Each asks again as soon as it has an answer."""
    start, answered = time.perf_counter(), 0

    async def client() -> None:
        nonlocal answered
        while time.perf_counter() - start < seconds:
            await ask(target, kind)
            answered += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answered / (time.perf_counter() - start)


def rates(targets: dict[str, Target], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return the median rate by kind of answer and target."""
    results: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in targets} for kind in ACCEPT
    }
    for number in range(rounds + 1):
        for kind in ACCEPT:
            for name, target in targets.items():
                # The first round is a warm-up.
                answers = asyncio.run(rate(target, kind, seconds if number else 1.0))
                if number:
                    results[kind][name].append(answers)
    return {
        kind: {name: statistics.median(answers) for name, answers in by_target.items()}
        for kind, by_target in results.items()
    }


def memory(target: Target, pid: int, minutes: float) -> tuple[float, float]:
    """Return the server's MiB after a fifth of the time and at the end. Clients call it all the time."""
    import psutil

    def ask_for(seconds: float) -> float:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for kind in ACCEPT:
                asyncio.run(rate(target, kind, min(5.0, seconds / 4)))
        return psutil.Process(pid).memory_info().rss / 2**20

    return ask_for(minutes * 60 / 5), ask_for(minutes * 60 * 4 / 5)


# -- report ------------------------------------------------------------------------------------------


def measure(endpoint: str, rounds: int, seconds: float, minutes: float) -> Iterator[Row]:
    with servers(endpoint) as running:
        targets, pid = running["targets"], running["pid"]
        for kind, by_target in rates(targets, rounds, seconds).items():
            peers = {**by_target, "the ideal": IDEAL}
            ours = peers.pop(OURS)
            for peer, answers in peers.items():
                limit = MIN_OF_DIRECT if peer == DIRECT else None
                yield Row(f"{kind} answers", "answers/s", ours, answers, peer, limit, more=True)
        if minutes:
            before, after = memory(targets[OURS], pid, minutes)
            name = f"memory after {minutes:g} minutes"
            yield Row(name, "MiB", after, before, "after a fifth of them", MAX_MEMORY_GROWTH)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=0,
        help="duration of the memory test in minutes (default: no test)",
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="number of rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="duration of each measurement (default: %(default)s)",
    )
    args = parser.parse_args()
    from stores import make_store

    with tempfile.TemporaryDirectory() as folder, slow_process(LATENCY_S) as url:
        os.environ.update(
            PF_HOME_DIRECTORY=str(make_store(Path(folder) / "store")),
            PHI3_HOME=str(Path(folder) / "phi3"),
            PF_TRACING_SKIP_LOCAL_SETUP="true",
            APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED="true",
        )
        from phi3_ops.pf.connections import save_connection

        save_connection("phi3", {"endpoint": url}, "a-key")
        rows = list(measure(url, args.rounds, args.seconds, args.minutes))
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
