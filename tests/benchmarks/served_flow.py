"""Measures the answers per second of a served flow: `phi3 serve` and both engines of `pf flow serve`.

    python tests/benchmarks/served_flow.py --json bench/served_flow.json [--minutes 10]

32 clients ask flows/chat for whole answers and for streams. The endpoint runs in another process
and takes 0.2 s per answer, so at most 160 answers per second are possible. The three servers run
all the time and are called in turns. The clients open a new connection for each question. With
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
OURS, FLASK, FASTAPI = "phi3 serve", "pf flow serve (flask)", "pf flow serve (fastapi)"
ACCEPT = {"whole": "application/json", "streamed": "text/event-stream"}
MIN_OF_IDEAL = 0.95
MAX_MEMORY_GROWTH = 1.1
PROBE = {"question": "Who founded Microsoft?", "chat_history": []}


@contextlib.contextmanager
def servers() -> Iterator[dict[str, Any]]:
    """Start the three servers. Yield them by name."""
    from served_flow import pf_serve, phi3_serve

    flow = ROOT / "flows" / "chat"
    with (
        phi3_serve() as ours,
        pf_serve(flow, "--engine", "flask") as flask,
        pf_serve(flow, "--engine", "fastapi") as fastapi,
    ):
        yield {OURS: ours, FLASK: flask, FASTAPI: fastapi}


async def ask(host: str, port: int, accept: str) -> None:
    """Ask one question on a new connection. Raises ValueError if the answer is incomplete."""
    body = json.dumps(PROBE)
    reader, writer = await asyncio.open_connection(host, port)
    head = (
        f"POST /score HTTP/1.1\r\nhost: {host}:{port}\r\naccept: {accept}\r\nconnection: close\r\n"
    )
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write((head + body).encode())
    answer = await reader.read()
    while piece := await reader.read():
        answer += piece
    writer.close()
    pieces = answer.count(b"Who founded Microsoft?")
    if b" 200 " not in answer.partition(b"\r\n")[0] or pieces != (4 if "event" in accept else 1):
        raise ValueError(f"no answer: {answer[:300]!r}")


async def rate(url: str, accept: str, seconds: float) -> float:
    """Return the answers per second of all clients. Each asks again as soon as it has an answer."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    assert host and port
    start, answered = time.perf_counter(), 0

    async def client() -> None:
        nonlocal answered
        while time.perf_counter() - start < seconds:
            await ask(host, port, accept)
            answered += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answered / (time.perf_counter() - start)


def rates(running: dict[str, Any], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return the median rate by kind of answer and server."""
    results: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in running} for kind in ACCEPT
    }
    for number in range(rounds + 1):
        for kind, accept in ACCEPT.items():
            for name, served in running.items():
                # The first round is a warm-up.
                answers = asyncio.run(rate(served.url, accept, seconds if number else 1.0))
                if number:
                    results[kind][name].append(answers)
    return {
        kind: {name: statistics.median(answers) for name, answers in by_server.items()}
        for kind, by_server in results.items()
    }


def memory(served: Any, minutes: float) -> tuple[float, float]:
    """Return the server's MiB after a fifth of the time and at the end. Clients call it all the time."""
    import psutil

    def ask_for(seconds: float) -> float:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for accept in ACCEPT.values():
                asyncio.run(rate(served.url, accept, min(5.0, seconds / 4)))
        return psutil.Process(served.process.pid).memory_info().rss / 2**20

    return ask_for(minutes * 60 / 5), ask_for(minutes * 60 * 4 / 5)


# -- report ------------------------------------------------------------------------------------------


def measure(rounds: int, seconds: float, minutes: float) -> Iterator[Row]:
    with servers() as running:
        for kind, by_server in rates(running, rounds, seconds).items():
            yield Row(
                f"{kind} answers",
                "answers/s",
                by_server[OURS],
                IDEAL,
                "the ideal",
                MIN_OF_IDEAL,
                more=True,
            )
            for peer in (FLASK, FASTAPI):
                yield Row(
                    f"{kind} answers",
                    "answers/s",
                    by_server[OURS],
                    by_server[peer],
                    peer,
                    more=True,
                )
        if minutes:
            before, after = memory(running[OURS], minutes)
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
        rows = list(measure(args.rounds, args.seconds, args.minutes))
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
