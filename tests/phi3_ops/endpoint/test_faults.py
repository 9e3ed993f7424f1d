"""Every fault, for plain and for streamed requests, read from a raw socket."""

import json
import socket
from dataclasses import dataclass

import pytest
import requests

from phi3_ops.endpoint.fault_rules import load_fault_rules
from phi3_ops.endpoint.fault_table import FAULTS
from phi3_ops.endpoint.faults import MAX_HEADERS, FaultMiddleware
from tiny_endpoint import HANG_S, KEY, running

CHAT = {"messages": [{"role": "user", "content": "Österreich? 🙂"}], "max_tokens": 12}
PLAIN = {"input_data": {"input_string": CHAT["messages"], "parameters": {"max_tokens": 12}}}
STREAM = {**CHAT, "stream": True}
PAYLOADS = {"plain": PLAIN, "stream": STREAM}


@pytest.fixture(scope="module")
def url(tiny_model_dir):
    with running(tiny_model_dir, faults=[]) as url:
        yield url


@dataclass
class Received:
    """The bytes that were received until the connection ended: `end` is `closed` or `reset`."""

    raw: bytes
    end: str

    @property
    def head(self):
        return self.raw.partition(b"\r\n\r\n")[0].decode().lower()

    @property
    def status(self):
        return int(self.head.split()[1])

    @property
    def headers(self):
        return dict(line.split(": ", 1) for line in self.head.split("\r\n")[1:])

    @property
    def body(self):
        body = self.raw.partition(b"\r\n\r\n")[2]
        return dechunked(body)[0] if self.is_chunked else body

    @property
    def is_chunked(self):
        return self.headers.get("transfer-encoding") == "chunked"

    @property
    def is_whole(self):
        """Whether HTTP itself sees a complete response."""
        body = self.raw.partition(b"\r\n\r\n")[2]
        if self.is_chunked:
            return dechunked(body)[1]
        return len(body) == int(self.headers["content-length"])


def dechunked(data):
    """The content of a chunked body, and whether its last chunk was received."""
    content = b""
    while b"\r\n" in data:
        size, _, data = data.partition(b"\r\n")
        if not int(size, 16):
            return content, True
        content, data = content + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return content, False


def call(url, payload, fault=None, path="/score", key=KEY):
    """Send a request over a plain socket and read to the end."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(payload).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        f"Authorization: Bearer {key}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *([f"X-Phi3-Fault: {fault}"] if fault else []),
    ]
    raw, end = b"", "closed"
    with socket.create_connection((host, int(port)), timeout=HANG_S) as sock:
        sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        try:
            while piece := sock.recv(65536):
                raw += piece
        except ConnectionResetError:
            end = "reset"
    return Received(raw, end)


@pytest.fixture(scope="module")
def healthy(url):
    """The healthy answers, by kind of request."""
    return {kind: call(url, payload) for kind, payload in PAYLOADS.items()}


def data_of(body):
    return [block.removeprefix(b"data: ") for block in body.split(b"\n\n") if block[:1] != b":"][
        :-1
    ]


# --- canned answers: the same for a plain request and for one that asks to stream -------------

CANNED = {
    # fault: (status, required headers, part of the body)
    "401": (401, {}, "expired"),
    "403": (403, {}, "may not call"),
    "404-no-traffic": (404, {}, "Specified traffic group could not be found"),
    "404-retired": (404, {}, "retired"),
    "408": (408, {}, "request_timeout_ms"),
    "413": (413, {}, "too large"),
    "424-400": (424, {"statuscode": "400", "reason": "model_error"}, "model_error"),
    "424-429": (424, {"statuscode": "429", "reason": "too_many_pending_request"}, ""),
    "424-500": (424, {"statuscode": "500", "reason": "model_error"}, ""),
    "424-model-not-ready": (424, {"statuscode": "503", "reason": "model_not_ready"}, ""),
    "429": (429, {}, "in flight"),
    "429-retry-after": (429, {"retry-after": "1"}, "in flight"),
    "500": (500, {}, "infrastructure"),
    "502": (502, {"content-type": "text/html"}, "<h1>502 Bad Gateway</h1>"),
    "503": (503, {"content-type": "text/html"}, "<h1>503"),
    "504": (504, {"content-type": "text/html"}, "<h1>504"),
    "not-json": (200, {"content-type": "text/html"}, "<html>"),
    "error-in-200": (200, {"content-type": "application/json"}, '{"output": null, "error": {'),
    "empty-200": (200, {"content-type": "application/json"}, "{}"),
}
PREFIX = "ms-azureml-model-error-"


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("fault", CANNED)
def test_canned_answers(url, fault, kind):
    status, headers, part = CANNED[fault]
    seen = call(url, PAYLOADS[kind], fault)
    assert (seen.status, seen.end, seen.is_whole) == (status, "closed", True)
    for name, value in headers.items():
        assert seen.headers[PREFIX + name if name in ("statuscode", "reason") else name] == value
    assert part in seen.body.decode()
    assert "x-ms-request-id" in seen.headers
    if seen.headers["content-type"] == "application/json":
        json.loads(seen.body)
    if fault == "429":
        assert "retry-after" not in seen.headers


def test_retry_after_can_be_set(url):
    assert call(url, PLAIN, "429-retry-after; seconds=7").headers["retry-after"] == "7"


# --- changed answers --------------------------------------------------------------------------


def test_the_healthy_answers_are_healthy(healthy):
    assert [(s.status, s.end, s.is_whole) for s in healthy.values()] == [(200, "closed", True)] * 2
    assert data_of(healthy["stream"].body)[-1] == b"[DONE]"


def assert_same(seen, healthy):
    """Equal, apart from the values that differ between any two answers."""
    assert (seen.status, seen.end, seen.is_whole) == (200, "closed", True)
    assert len(seen.body) == len(healthy.body)


@pytest.mark.parametrize("kind", PAYLOADS)
def test_truncated_json(url, healthy, kind):
    seen = call(url, PAYLOADS[kind], "truncated-json")
    assert (seen.status, seen.end, seen.is_whole) == (200, "closed", True)
    assert 0 < len(seen.body) < len(healthy[kind].body)
    last = seen.body.split(b"\n\n")[-1].removeprefix(b"data: ")
    with pytest.raises(ValueError, match="(?i)unterminated|expecting|delimiter"):
        json.loads(last)


@pytest.mark.parametrize("kind", PAYLOADS)
def test_oversized(url, healthy, kind):
    seen = call(url, PAYLOADS[kind], "oversized; mib=3")
    assert (seen.status, seen.is_whole) == (200, True)
    padding = len(seen.body) - len(healthy[kind].body)
    assert 3 * 2**20 <= padding <= 3 * 2**20 + 1
    if kind == "plain":
        assert "output" in json.loads(seen.body)
    else:
        assert data_of(seen.body)[-1] == b"[DONE]"


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("fault", ["slow-headers", "slow-body"])
def test_slow_answers_are_complete_in_the_end(url, healthy, fault, kind):
    """`test_fault_table` checks how long they wait."""
    seen = call(url, PAYLOADS[kind], f"{fault}; seconds=0.3")
    assert_same(seen, healthy[kind])


def test_slow_headers_outlast_a_read_timeout(url):
    headers = {"authorization": f"Bearer {KEY}", "x-phi3-fault": "slow-headers; seconds=1"}
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{url}/score", json=PLAIN, headers=headers, timeout=0.2)


def test_a_slow_body_drips(url):
    headers = {"authorization": f"Bearer {KEY}", "x-phi3-fault": "slow-body; seconds=0.5"}
    response = requests.post(f"{url}/score", json=PLAIN, headers=headers, stream=True)
    first = response.raw.read1()
    rest = response.raw.read()
    response.close()
    assert 0 < len(first) < len(first + rest)
    assert json.loads(first + rest)["output"]


# --- broken connections -----------------------------------------------------------------------

BROKEN = {
    # fault: (how the connection ends, whether headers come, whether some of the body comes)
    "reset": ("reset", False, False),
    "reset-after-headers": ("reset", True, False),
    "reset-mid-body": ("reset", True, True),
    "close-mid-body": ("closed", True, True),
}


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("fault", BROKEN)
def test_broken_connections(url, healthy, fault, kind, caplog):
    end, has_headers, has_body = BROKEN[fault]
    seen = call(url, PAYLOADS[kind], fault)
    assert seen.end == end
    assert bool(seen.raw) == has_headers
    if has_headers:
        assert (seen.status, seen.is_whole, bool(seen.body)) == (200, False, has_body)
        assert len(seen.body) < len(healthy[kind].body)
    # The server treats it as an error of the network: its log contains no error.
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert_same(call(url, PAYLOADS[kind]), healthy[kind])


# --- streams ----------------------------------------------------------------------------------


def test_a_stream_cut_off_ends_without_done(url, healthy):
    seen = call(url, STREAM, "stream-cut")
    assert (seen.status, seen.end, seen.is_whole) == (200, "closed", True)
    events = data_of(seen.body)
    assert 0 < len(events) < len(data_of(healthy["stream"].body))
    assert b"[DONE]" not in events
    assert all(json.loads(event)["choices"][0]["finish_reason"] is None for event in events)


def test_an_error_event_comes_in_the_middle(url, healthy):
    events = data_of(call(url, STREAM, "stream-error").body)
    errors = [index for index, event in enumerate(events) if b'"error"' in event]
    assert len(events) == len(data_of(healthy["stream"].body)) + 1
    assert len(errors) == 1
    assert 0 < errors[0] < len(events) - 2
    assert json.loads(events[errors[0]])["error"]["message"] == "The engine failed."


def test_a_catalog_stream_can_be_cut_too(url):
    parameters = {"max_tokens": 12, "stream": True}
    payload = {"input_data": {**PLAIN["input_data"], "parameters": parameters}}
    assert b"[DONE]" not in call(url, payload, "stream-cut").body


@pytest.mark.parametrize("fault", ["stream-cut", "stream-error"])
def test_stream_faults_leave_plain_requests_alone(url, healthy, fault):
    assert_same(call(url, PLAIN, fault), healthy["plain"])


def test_every_fault_is_tested():
    others = {
        "truncated-json",
        "oversized",
        "slow-headers",
        "slow-body",
        "stream-cut",
        "stream-error",
    }
    assert set(FAULTS) == {*CANNED, *BROKEN, *others}


def test_a_refused_request_is_not_changed(url):
    for fault in ("truncated-json", "stream-cut"):
        seen = call(url, STREAM, fault, key="wrong")
        assert (seen.status, json.loads(seen.body)["error"]["code"]) == (401, "Unauthorized")


# --- when -------------------------------------------------------------------------------------


def statuses(url, count, **options):
    return [call(url, PLAIN, **options).status for _ in range(count)]


def test_a_header_counts_by_its_text(url):
    assert statuses(url, 4, fault="503; n=2; id=a") == [503, 503, 200, 200]
    assert statuses(url, 2, fault="503; n=1; id=b") == [503, 200]
    assert statuses(url, 4, fault="503; every=2; id=c") == [200, 503, 200, 503]
    assert statuses(url, 2, fault="503") == [503, 503]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("50", "fault = '50': this fault does not exist"),
        ("slow-bodies", "similar names: slow-body"),
        ("503; n=0", "times = '0': Input should be greater than or equal to 1"),
        ("503; n", "times = '': Input should be a valid integer"),
        ("503; every=x", "every = 'x': Input should be a valid integer"),
        ("slow-body; seconds=601", "seconds = '601': Input should be less than or equal to 600"),
        ("oversized; mib=1000", "mib = '1000': Input should be less than or equal to 256"),
        ("503; m=1", "m is unknown; the fields are fault, times, every, path, seconds, mib"),
    ],
)
def test_a_wrong_header_is_a_400_that_says_so(url, header, message):
    seen = call(url, PLAIN, header)
    assert seen.status == 400
    assert message in json.loads(seen.body)["error"]["message"]


def test_the_header_means_nothing_where_faults_are_off(tiny_model_dir):
    with running(tiny_model_dir) as url:
        assert statuses(url, 1, fault="503") == [200]


def test_rules_apply_in_order_and_run_out(tiny_model_dir, tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(
        "- fault: 429-retry-after\n  times: 2\n"
        "- fault: 503\n  every: 2\n  times: 1\n"
        "- {fault: '500', path: /v1/models, times: 1}\n"
    )
    with running(tiny_model_dir, faults=load_fault_rules(path)) as url:
        assert requests.get(url).text == "Healthy"
        assert statuses(url, 6) == [429, 429, 200, 503, 200, 200]
        key = {"authorization": f"Bearer {KEY}"}
        assert [requests.get(f"{url}/v1/models", headers=key).status_code for _ in "ab"] == [
            500,
            200,
        ]
        assert statuses(url, 1, fault="403") == [403]


def test_old_header_texts_are_forgotten():
    """Otherwise clients could fill the memory with ever new texts."""
    middleware = FaultMiddleware(app=None, rules=[])
    first = middleware._header_counter("503; id=0")
    for number in range(1, MAX_HEADERS):
        middleware._header_counter(f"503; id={number}")
    assert middleware._header_counter("503; id=0") is first
    middleware._header_counter("503; id=one more")
    assert middleware._header_counter("503; id=0") is not first
