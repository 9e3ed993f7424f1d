"""Measures the time that a call takes in the client, compared with other clients.

    python tests/benchmarks/client_overhead.py --json bench/client_overhead.json

A server in another process answers every request immediately, over http and https. All clients run
in one process and send the same question in turns, so that other load on the machine affects all of
them. The memory is measured in a new process per client: the peak of its resident memory (VmHWM,
Linux) minus the peak before the client was imported. Exits with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from bench_rows import Row, report  # noqa: E402

KEY = "a-key-for-benchmarks"
QUESTION = "Who founded Microsoft?"
ANSWER = "Bill Gates and Paul Allen founded Microsoft in 1975."
PARAMETERS = {"temperature": 0.7, "max_new_tokens": 128}

ROUNDS = 300  # calls of each client
WARM_UP = 20
THREADS = (1, 16, 64)
THREAD_SECONDS = 1.5  # for each client and number of threads
MEMORY_CALLS = 300
SCHEMES = ("http", "https")

# Our median time of a call divided by the peer's, at most.
LIMITS = {
    ("http", "tutorials"): 0.5,
    ("https", "tutorials"): 0.3,
    ("http", "open-model-llm"): 0.15,
    ("https", "open-model-llm"): 0.15,
    ("http", "bare session"): 1.3,
    ("https", "bare session"): 1.3,
}

Ask = Callable[[str], str]

# -- the clients: each function returns a function that sends a question to the URL ------------------


def ours(url: str) -> Ask:
    from phi3_tools import Params, Phi3Client

    client = Phi3Client.from_connection({"endpoint": url, "key": KEY})
    params = Params(**PARAMETERS)
    return lambda question: client.chat(question, params).text


def tutorials(url: str) -> Ask:
    """The node of the AI Foundry tutorial."""
    import requests

    def ask(question: str) -> str:
        data = {
            "input_data": {
                "input_string": [{"role": "user", "content": question}],
                "parameters": {"temperature": 0.7, "max_new_tokens": 128},
            }
        }
        headers = {"Content-Type": "application/json", "Authorization": "Bearer " + KEY}
        response = requests.post(url, data=json.dumps(data), headers=headers)  # noqa: S113 - theirs
        response.raise_for_status()
        return response.json()["output"]

    return ask


def bare_session(url: str) -> Ask:
    import requests

    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {KEY}"

    def ask(question: str) -> str:
        messages = [{"role": "user", "content": question}]
        body = {"input_data": {"input_string": messages, "parameters": PARAMETERS}}
        return session.post(url, json=body, timeout=30).json()["output"]

    return ask


def open_model_llm(url: str) -> Ask:
    """The tool of promptflow-tools. It reads its connection from Prompt flow's store at each call."""
    from promptflow.client import PFClient
    from promptflow.connections import CustomConnection
    from promptflow.tools.open_model_llm import API, OpenModelLLM

    name = f"open-model-{url.partition(':')[0]}"
    configs = {"endpoint_url": url, "model_family": "LLAMA"}
    connection = CustomConnection(name=name, configs=configs, secrets={"endpoint_api_key": KEY})
    PFClient().connections.create_or_update(connection)
    call = partial(OpenModelLLM().call, api=API.CHAT, endpoint_name=f"localConnection/{name}")
    return lambda question: call(prompt="user:\n" + question, **PARAMETERS)


def open_model_llm_arguments(url: str) -> Ask:
    """The same tool with the endpoint in arguments, which its source calls `mostly for testing`."""
    from promptflow.tools.open_model_llm import API, OpenModelLLM

    call = partial(
        OpenModelLLM().call,
        api=API.CHAT,
        endpoint_name="none",
        endpoint_url=url,
        endpoint_api_key=KEY,
        model_family="LLaMa",
    )
    return lambda question: call(prompt="user:\n" + question, **PARAMETERS)


PEERS: dict[str, Callable[[str], Ask]] = {
    "ours": ours,
    "tutorials": tutorials,
    "open-model-llm": open_model_llm,
    "open-model-llm, no store": open_model_llm_arguments,
    "bare session": bare_session,
}

# -- the endpoint ------------------------------------------------------------------------------------


class ConstantAnswer(asyncio.Protocol):
    """Sends the same answer to every request. Keeps connections open (HTTP/1.1)."""

    BODY = json.dumps({"output": ANSWER}).encode()
    HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    RESPONSE = HEAD % len(BODY) + BODY

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        if len(body) >= length:
            self.received = body[length:]
            self.transport.write(self.RESPONSE)


def serve(ports: Any, certificate: str) -> None:
    """Serve http and https until the process is terminated. Put both ports into the queue."""

    async def run() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        loop = asyncio.get_running_loop()
        plain = await loop.create_server(ConstantAnswer, "127.0.0.1", 0, backlog=512)
        secure = await loop.create_server(ConstantAnswer, "127.0.0.1", 0, backlog=512, ssl=context)
        ports.put([server.sockets[0].getsockname()[1] for server in (plain, secure)])
        await asyncio.Event().wait()

    asyncio.run(run())


@contextlib.contextmanager
def endpoint(folder: Path) -> Iterator[dict[str, str]]:
    """Run an endpoint whose certificate is trusted. Yield its URLs by scheme."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    server_certificate = folder / "server.pem"
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        server_certificate
    )
    os.environ["REQUESTS_CA_BUNDLE"] = str(folder / "authority.pem")
    processes = multiprocessing.get_context("spawn")
    ports = processes.Queue()
    server = processes.Process(target=serve, args=(ports, str(server_certificate)), daemon=True)
    server.start()
    try:
        plain, secure = ports.get(timeout=60)
        yield {
            "http": f"http://127.0.0.1:{plain}/score",
            "https": f"https://localhost:{secure}/score",
        }
    finally:
        server.terminate()
        server.join()


# -- measurements ------------------------------------------------------------------------------------


def times_of(asks: dict[str, Ask]) -> dict[str, list[float]]:
    """Return the microseconds of each call. The clients take turns."""
    times: dict[str, list[float]] = {name: [] for name in asks}
    for number in range(WARM_UP + ROUNDS):
        for name, ask in asks.items():
            start = time.perf_counter()
            ask(QUESTION)
            if number >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1e6)
    return times


def calls_per_second(ask: Ask, threads: int) -> float:
    """Return the calls per second of all threads together."""
    end = time.perf_counter() + THREAD_SECONDS

    def work(_: int) -> int:
        calls = 0
        while time.perf_counter() < end:
            ask(QUESTION)
            calls += 1
        return calls

    with ThreadPoolExecutor(threads) as pool:
        calls = sum(pool.map(work, range(threads)))
    return calls / (time.perf_counter() - end + THREAD_SECONDS)


def memory_mib(name: str, url: str) -> float:
    """Return the peak memory that a client adds to a new process."""
    processes = multiprocessing.get_context("spawn")
    results = processes.Queue()
    process = processes.Process(target=_measure_memory, args=(results, name, url))
    process.start()
    mib: float = results.get(timeout=120)
    process.join()
    return mib


def _measure_memory(results: Any, name: str, url: str) -> None:
    before = _peak_mib()
    with quiet():
        ask = PEERS[name](url)
        for _ in range(MEMORY_CALLS):
            ask(QUESTION)
    results.put(_peak_mib() - before)


def _peak_mib() -> float:
    # ru_maxrss of getrusage does not work here: a child process inherits it from its parent.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the output of Open Model LLM, which prints at each call."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


# -- report ------------------------------------------------------------------------------------------


def rows_of(name: str, unit: str, figures: dict[str, float], scheme: str = "") -> list[Row]:
    """Return a row per peer. The rows have limits only if a scheme is given."""
    return [
        Row(name, unit, figures["ours"], figure, peer, LIMITS.get((scheme, peer)))
        for peer, figure in figures.items()
        if peer != "ours"
    ]


def measure(urls: dict[str, str]) -> Iterator[Row]:
    for scheme in SCHEMES:
        asks = {name: make(urls[scheme]) for name, make in PEERS.items()}
        assert all(ask(QUESTION) == ANSWER for ask in asks.values())
        times = times_of(asks)
        median = {name: statistics.median(values) for name, values in times.items()}
        p95 = {name: statistics.quantiles(values, n=20)[-1] for name, values in times.items()}
        yield from rows_of(f"{scheme}, median", "µs/call", median, scheme)
        yield from rows_of(f"{scheme}, p95", "µs/call", p95)
        for threads in THREADS:
            rates = {name: calls_per_second(ask, threads) for name, ask in asks.items()}
            yield from rows_of(f"{scheme}, {threads} threads", "calls/s", rates)
    memory = {name: memory_mib(name, urls["https"]) for name in PEERS}
    yield from rows_of("memory", "MiB", memory)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    args = parser.parse_args()
    # A bare session keeps 10 connections and logs a warning for each further one.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "pf.yaml").write_text("telemetry:\n  enabled: false\ntrace:\n  destination: none\n")
        os.environ.update(
            PF_HOME_DIRECTORY=folder,
            PF_TRACING_SKIP_LOCAL_SETUP="true",
            APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED="true",
        )
        with endpoint(home) as urls, quiet():
            rows = list(measure(urls))
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
