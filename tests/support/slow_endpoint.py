"""An endpoint with a fixed answer time that may answer 429, for tests and benchmarks of batches.

    python slow_endpoint.py SECONDS [MOST]     # prints its URL, serves until it is killed

It has one thread and no framework, so that it is never the bottleneck of a measurement.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PIECES = 4  # of a streamed answer
STREAM_HEAD = (
    b"HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


@dataclass
class SlowServer:
    """Answers the chat contract with the question itself; the question `fail` gets a 400.

    With `stream`, the answer is `PIECES` server-sent events, spread evenly over the answer time.

    Attributes:
        seconds: time that an answer takes.
        most: number of requests in flight above which a request gets a 429 at once; None for no limit.
        failing: questions that get a 400.
        asked: number of answers for each question.
        refused: number of 429s.
        highest: highest number of requests in flight so far.
    """

    seconds: float
    most: int | None = None
    failing: set[str] = field(default_factory=lambda: {"fail"})
    asked: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    in_flight: int = 0
    highest: int = 0
    url: str = ""
    connections: set[asyncio.BaseTransport] = field(default_factory=set)

    def answer(self, question: str) -> tuple[int, dict[str, object]]:
        """Return the status and the body of an answer."""
        if question in self.failing:
            return 400, {"error": {"message": "told to fail"}}
        self.asked[question] += 1
        return 200, {"output": question, "usage": USAGE}


class _Connection(asyncio.Protocol):
    def __init__(self, server: SlowServer) -> None:
        self.server = server
        self.buffer = b""
        self.last = False  # whether the client wants the connection closed after this answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.connections.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.server.connections.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(rest) >= length:
            self.buffer = rest[length:]
            self.last = b"connection: close" in head.lower()
            data = json.loads(rest[:length])["input_data"]
            streams = bool(data.get("parameters", {}).get("stream"))
            self.take(data["input_string"][-1]["content"], streams)

    def take(self, question: str, streams: bool) -> None:
        server = self.server
        if server.most is not None and server.in_flight >= server.most:
            server.refused += 1
            self.send(429, {"error": {"message": "too many requests"}})
            return
        server.in_flight += 1
        server.highest = max(server.highest, server.in_flight)
        later = asyncio.get_running_loop().call_later
        if not streams:
            later(server.seconds, self.finish, question)
            return
        self.transport.write(STREAM_HEAD)
        for number in range(1, PIECES + 1):
            later(server.seconds * number / PIECES, self.send_piece, question, number)

    def finish(self, question: str) -> None:
        self.server.in_flight -= 1
        self.send(*self.server.answer(question))

    def send_piece(self, question: str, number: int) -> None:
        event: dict[str, object] = {"output": f"{question} "}
        if number == PIECES:
            self.server.in_flight -= 1
            self.server.asked[question] += 1
            event |= {"finish_reason": "stop", "usage": USAGE}
        self.chunk(f"data: {json.dumps(event)}\n\n")
        if number == PIECES:
            self.chunk("data: [DONE]\n\n")
            self.chunk("")
            self.close_if_last()

    def chunk(self, text: str) -> None:
        self.transport.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())

    def send(self, status: int, payload: dict[str, object]) -> None:
        body = json.dumps(payload).encode()
        head = (
            f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        self.transport.write(f"{head}\r\n\r\n".encode() + body)
        self.close_if_last()

    def close_if_last(self) -> None:
        if self.last:
            self.transport.close()


async def serve(server: SlowServer, ready: threading.Event, end: asyncio.Event) -> None:
    """Serve on a free loopback port until `end` is set."""
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Connection(server), "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/score"
    ready.set()
    await end.wait()
    listening.close()
    for connection in list(server.connections):
        connection.close()
    while server.connections:
        await asyncio.sleep(0)


@contextmanager
def slow_endpoint(seconds: float, most: int | None = None) -> Iterator[SlowServer]:
    """Run a server in a thread of this process."""
    server, ready = SlowServer(seconds, most), threading.Event()
    loop, end = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(server, ready, end)))
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()


@contextmanager
def slow_process(seconds: float) -> Iterator[str]:
    """Run a server in a process of its own, for measurements; gives its URL."""
    command = [sys.executable, __file__, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def main() -> None:
    server = SlowServer(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)

    async def run() -> None:
        ready = threading.Event()
        task = asyncio.ensure_future(serve(server, ready, asyncio.Event()))
        while not ready.is_set():
            await asyncio.sleep(0.01)
        print(server.url, flush=True)
        await task

    asyncio.run(run())


if __name__ == "__main__":
    main()
