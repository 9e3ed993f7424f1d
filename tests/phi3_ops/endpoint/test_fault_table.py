"""The faults themselves: canned answers, changed bodies, and how slowly they are sent."""

import asyncio
import json

import pytest

from phi3_ops.endpoint import fault_table
from phi3_ops.endpoint.fault_table import DRIPS, FAULTS, TRANSPORT, Answer, Wire, send_answer

JSON_HEADERS = [(b"content-type", b"application/json")]
SSE_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]
STREAM = b"".join(b'data: {"n": %d}\n\n' % n for n in range(6)) + b"data: [DONE]\n\n"


@pytest.fixture
def sleeps(monkeypatch):
    """The seconds that the faults wait, in order; nothing really waits."""
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(fault_table, "sleep", sleep)
    return waited


def delivered(fault, answer, seconds=0.0, scope=None):
    """The ASGI messages that a fault sends."""
    messages = []

    async def send(message):
        messages.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    wire = Wire(scope or {}, receive, send)
    asyncio.run(FAULTS[fault].deliver(wire, answer, seconds))
    return messages


def body_of(messages):
    return b"".join(message.get("body", b"") for message in messages)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_a_summary_and_one_way_to_fail(name):
    fault = FAULTS[name]
    assert fault.summary
    changes_delivery = fault.deliver is not send_answer
    assert [fault.status is not None, fault.change is not None, changes_delivery].count(True) == 1


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.status])
def test_a_canned_answer_has_its_status_and_its_type(name):
    fault = FAULTS[name]
    answer = fault.canned(fault.status, 1.5)
    assert answer.status == fault.status
    content_type = dict(answer.headers)[b"content-type"]
    if content_type == b"application/json":
        json.loads(answer.body)
    else:
        assert content_type == b"text/html" and answer.body.startswith(b"<html>")


def test_retry_after_is_in_whole_seconds():
    headers = dict(FAULTS["429-retry-after"].canned(429, 1.2).headers)
    assert headers[b"retry-after"] == b"2"


# -- how an answer is sent ---------------------------------------------------------------------------


def test_a_complete_answer_has_its_length():
    start, body = delivered("truncated-json", Answer(200, JSON_HEADERS, b"{}"))
    assert start["headers"] == [*JSON_HEADERS, (b"content-length", b"2")]
    assert (body["body"], body["more_body"]) == (b"{}", False)


def test_a_stream_has_no_length():
    start, _ = delivered("stream-cut", Answer(200, SSE_HEADERS, STREAM))
    assert start["headers"] == SSE_HEADERS


def test_slow_headers_wait_before_the_answer(sleeps):
    messages = delivered("slow-headers", Answer(200, JSON_HEADERS, b"{}"), 3)
    assert sleeps == [3]
    assert body_of(messages) == b"{}"


def test_a_slow_body_waits_after_each_piece_for_the_seconds_in_total(sleeps):
    messages = delivered("slow-body", Answer(200, JSON_HEADERS, b"x" * 100), 3)
    assert sum(sleeps) == pytest.approx(3)
    assert len(sleeps) == DRIPS
    pieces = [message["body"] for message in messages[1:]]
    assert pieces == [b"xxxx"] * DRIPS + [b""]


class Transport:
    """A connection that records how it is broken."""

    def __init__(self):
        self.calls = []

    def get_extra_info(self, name):
        return self

    def setsockopt(self, *args):
        self.calls.append("linger")

    def abort(self):
        self.calls.append("abort")

    def close(self):
        self.calls.append("close")


@pytest.mark.parametrize(
    ("fault", "calls", "body"),
    [
        ("reset", ["linger", "abort"], None),
        ("reset-after-headers", ["linger", "abort"], b""),
        ("reset-mid-body", ["linger", "abort"], b"ab"),
        ("close-mid-body", ["close"], b"ab"),
    ],
)
def test_a_connection_is_broken_after_the_bytes_before(sleeps, fault, calls, body):
    transport = Transport()
    messages = delivered(fault, Answer(200, JSON_HEADERS, b"abcd"), scope={TRANSPORT: transport})
    assert transport.calls == calls
    assert (body_of(messages) if messages else None) == body
    assert sleeps == [fault_table.SETTLE_S]


def test_only_a_real_connection_can_be_broken():
    with pytest.raises(RuntimeError, match="only a real connection"):
        delivered("reset", Answer(200, JSON_HEADERS, b"{}"))


# -- changed bodies ----------------------------------------------------------------------------------


def test_json_is_cut_in_the_middle():
    assert FAULTS["truncated-json"].change(b'{"output": "abc"}', 1) == b'{"output'


def test_the_json_of_an_event_is_cut():
    *events, last = FAULTS["truncated-json"].change(STREAM, 1).split(b"\n\n")
    assert all(json.loads(event.removeprefix(b"data: ")) for event in events)
    assert last == b'data: {"n":'


@pytest.mark.parametrize("body", [b'{"output": "abc"}', STREAM])
def test_a_padded_body_keeps_its_content(body):
    padded = FAULTS["oversized"].change(body, 2)
    assert 2 * 2**20 <= len(padded) - len(body) <= 2 * 2**20 + 1
    assert body in padded


def test_a_cut_stream_has_only_the_first_events():
    cut = FAULTS["stream-cut"].change(STREAM, 1)
    assert STREAM.startswith(cut) and 0 < len(cut) < len(STREAM)
    assert b"[DONE]" not in cut


def test_a_broken_stream_has_an_error_event_in_the_middle():
    broken = FAULTS["stream-error"].change(STREAM, 1)
    events = broken.removesuffix(b"\n\n").split(b"\n\n")
    (index,) = [index for index, event in enumerate(events) if b'"error"' in event]
    assert 0 < index < len(events) - 2
    del events[index]
    assert b"\n\n".join([*events, b""]) == STREAM
