"""A small scripted HTTP server on loopback, clients for it, and a clean environment."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings

from judge_endpoint import fair, judge_endpoint
from phi3_tools import Phi3Client
from phi3_tools.client.retry import Deadline

# Tests do not fail on a busy machine, and write no files.
settings.register_profile(
    "phi3_tools",
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("phi3_tools")

KEY = "k3y-of-the-endpoint"
HANG_S = 30  # seconds after which a test counts as hanging
PROXIES = [f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")]
FIELDS = [f"PHI3_{name}" for name in ("ENDPOINT", "KEY", "CONTRACT", "DEPLOYMENT", "AUTH", "MODEL")]
OTHERS = [
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NETRC",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in [*PROXIES, *map(str.lower, PROXIES), *FIELDS, *OTHERS]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + HANG_S
    while left := [t for t in set(threading.enumerate()) - before if not t.daemon]:
        assert time.monotonic() < end, left
        time.sleep(0.01)


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def method(self):
        return self.line.split()[0]

    @property
    def path(self):
        return self.line.split()[1]

    @property
    def json(self):
        return json.loads(self.body)


class Exchange:
    """One request, and the connection for its answer."""

    def __init__(self, request, connection, server):
        self.request, self.connection, self.server = request, connection, server
        self.keep = True

    def send(self, data):
        self.connection.sendall(data)

    def head(self, status=200, headers=None):
        lines = [f"HTTP/1.1 {status} Said", *(f"{n}: {v}" for n, v in (headers or {}).items())]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def respond(self, body, status=200, headers=None):
        self.head(status, {"content-length": len(body), **(headers or {})})
        self.send(body)

    def begin_events(self):
        self.head(headers={"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, payload):
        text = payload if isinstance(payload, str) else json.dumps(payload)
        self.chunk(f"data: {text}\n\n".encode())

    def end_chunks(self):
        self.send(b"0\r\n\r\n")

    def hang_up(self):
        self.keep = False

    def drip(self, data, every_s=0.05):
        """Send the data byte by byte, again and again, until the client or the server closes."""
        for n in range(HANG_S * 1000):
            self.send(data[n % len(data) : n % len(data) + 1])
            if self.server.stopping.wait(every_s):
                return

    def until_client_leaves(self):
        """Wait until the client closes the connection, and return whether it did."""
        self.connection.settimeout(HANG_S)
        try:
            gone = not self.connection.recv(1)
        except OSError as error:
            gone = not isinstance(error, TimeoutError)
        self.keep = False
        if gone:
            self.server.client_left.set()
        return gone


class ScriptedServer(socketserver.ThreadingTCPServer):
    """Gives its answers in turn, and then the last one again.

    Attributes:
        requests: the requests, in order.
        connections: number of connections.
        client_left: set after a client closed its connection in the middle of an answer.
    """

    daemon_threads = False
    request_queue_size = 256
    scheme = "http"

    def __init__(self, tls=None):
        self.tls = tls
        self.scheme = "https" if tls else "http"
        self.requests: list[Request] = []
        self.connections = 0
        self.client_left = threading.Event()
        self.stopping = threading.Event()
        self._answers: list[Callable[[Exchange], None]] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def port(self):
        return self.server_address[1]

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}/score"

    def bodies(self):
        return [request.json for request in self.requests]

    # -- the script ----------------------------------------------------------------------------

    def play(self, *answers):
        """Add answers, each a function of an `Exchange`."""
        self._answers += answers
        return self

    def give(self, status, body=b"", headers=None):
        return self.play(lambda x: x.respond(body, status, headers))

    def json(self, payload, status=200, headers=None):
        return self.give(status, json.dumps(payload).encode(), headers)

    def events(self, *payloads, cut=False):
        """Add a stream of events; `cut` closes the connection instead of the end of the stream."""

        def answer(x):
            x.begin_events()
            for payload in payloads:
                x.event(payload)
            x.hang_up() if cut else x.end_chunks()

        return self.play(answer)

    def next_answer(self, request):
        with self._lock:
            self.requests.append(request)
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    # -- running -------------------------------------------------------------------------------

    def count(self):
        with self._lock:
            self.connections += 1

    def opened(self, connection):
        with self._lock:
            self._open.add(connection)

    def drop_connections(self):
        """Close all connections, as a front end does with idle ones."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # closed already
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own method
            self._open.clear()

    def handle_error(self, request, client_address):
        """Ignore clients that close their connections; tests do this on purpose."""

    def stop(self):
        self.stopping.set()
        self.shutdown()
        self.drop_connections()
        self.server_close()
        self._thread.join(HANG_S)


class _Handler(socketserver.BaseRequestHandler):
    server: ScriptedServer

    def handle(self):
        connection = self.request
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.count()
        self.server.opened(connection)
        try:
            if self.server.tls:
                connection = self.server.tls.wrap_socket(connection, server_side=True)
                self.server.opened(connection)
            self._serve(connection)
        except OSError:
            pass  # the client closed the connection
        finally:
            connection.close()

    def _serve(self, connection):
        with connection.makefile("rb") as incoming:
            while request := _read_request(incoming):
                exchange = Exchange(request, connection, self.server)
                self.server.next_answer(request)(exchange)
                if not exchange.keep or self.server.stopping.is_set():
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
                    return


def _read_request(incoming):
    line = incoming.readline().decode("latin-1").strip()
    if not line:
        return None
    headers = {}
    while field := incoming.readline().decode("latin-1").strip():
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    return Request(line, headers, incoming.read(int(headers.get("content-length", 0))))


@pytest.fixture
def new_server():
    """Return a function that makes servers; they are stopped after the test."""
    servers = []

    def make(tls=None):
        servers.append(ScriptedServer(tls))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def server(new_server):
    return new_server()


@pytest.fixture
def connect():
    """Return a function that makes clients of a server or URL; they are closed after the test."""
    clients = []

    def make(to, **fields):
        url = to if isinstance(to, str) else to.url
        client = Phi3Client.from_connection({"endpoint": url, "key": KEY, **fields})
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the client waited between attempts; the waits are skipped."""
    seconds = []
    monkeypatch.setattr(Deadline, "sleep", lambda self, wait: seconds.append(wait))
    return seconds


@pytest.fixture
def key():
    return KEY


@pytest.fixture(scope="module")
def judge_endpoint_server():
    with judge_endpoint() as server:
        yield server


@pytest.fixture
def judge_server(judge_endpoint_server):
    """An endpoint with a fair judge; tests may change the judge and read the requests."""
    server = judge_endpoint_server
    server.judge, server.digits, server.refuses = fair, {}, set()
    server.requests.clear()
    return server
