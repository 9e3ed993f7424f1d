"""Requests to an endpoint and its answers, by a hash of the request, and a server that replays them."""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

HASH_DIGITS = 32
UNKNOWN_STATUS = 400  # of a request that was not recorded; the client does not repeat it

S = TypeVar("S", bound="LoopbackServer")


@dataclass(frozen=True)
class Exchange:
    """One answer of an endpoint.

    Attributes:
        status: its status.
        content_type: its media type.
        body: its body.
    """

    status: int
    content_type: str
    body: str


def request_hash(path: str, deployment: str, body: bytes) -> str:
    """Return a hash of what an endpoint reads of a request: path, deployment and body, without the key.

    The order of the keys in the body does not matter.
    """
    try:
        content = json.dumps(json.loads(body), sort_keys=True)
    except ValueError:
        content = body.decode("utf-8", "replace")
    text = "\n".join((path, deployment, content))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]


def deployment_of(headers: Mapping[str, str]) -> str:
    """Return the deployment that a request names, or an empty string."""
    lowered = {name.lower(): value for name, value in headers.items()}
    return lowered.get("azureml-model-deployment", "")


def group_exchanges(pairs: Sequence[tuple[str, Exchange]]) -> dict[str, list[Exchange]]:
    """Return the answers by the hash of their request, without repetitions of the last one."""
    grouped: dict[str, list[Exchange]] = {}
    for digest, exchange in pairs:
        answers = grouped.setdefault(digest, [])
        if answers[-1:] != [exchange]:
            answers.append(exchange)
    return grouped


class LoopbackServer(ThreadingHTTPServer, ABC):
    """An HTTP server on loopback whose POST requests are answered by `answer`."""

    daemon_threads = True
    request_queue_size = 256

    @abstractmethod
    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        """Return the answer to a request."""

    @property
    def address(self) -> str:
        """The URL without a path."""
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve in a thread inside the block."""
        thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackServer

    def do_POST(self) -> None:  # noqa: N802 - the name of the base class
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        exchange = self.server.answer(self.path, dict(self.headers.items()), body)
        content = exchange.body.encode("utf-8", "surrogatepass")
        self.send_response(exchange.status)
        self.send_header("Content-Type", exchange.content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


def loopback_server(kind: type[S]) -> S:
    """Return a server of this class on a free port."""
    return kind(("127.0.0.1", 0), _Handler)


class Replay(LoopbackServer):
    """Answers requests as a recording says.

    Attributes:
        exchanges: hash of a request -> its answers in order; the last one is repeated.
        requests: the hashes of the requests so far, in order.
        unknown: hash -> body of the requests that were not recorded.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.exchanges: Mapping[str, Sequence[Exchange]] = {}
        self.requests: list[str] = []
        self.unknown: dict[str, str] = {}
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()

    def start_anew(self) -> None:
        """Forget the requests so far, except the unknown ones."""
        with self._lock:
            self._asked.clear()
            self.requests.clear()

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        digest = request_hash(path, deployment_of(headers), body)
        with self._lock:
            self.requests.append(digest)
            answers = self.exchanges.get(digest)
            if not answers:
                self.unknown[digest] = body.decode("utf-8", "replace")
                error = {"error": {"message": f"the request {digest} was not recorded"}}
                return Exchange(UNKNOWN_STATUS, "application/json", json.dumps(error))
            number = min(self._asked[digest], len(answers) - 1)
            self._asked[digest] += 1
            return answers[number]
