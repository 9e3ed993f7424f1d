"""Streams that are closed or abandoned at any time, also before their first item."""

import threading
from types import SimpleNamespace

import pytest
import score
import streams
from sampling import GenerationParams
from streams import Stream

from byte_backend import HANG_S
from polling import wait_until

LONG = 100_000  # tokens
HI = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": LONG, "stream": True}


@pytest.fixture
def ends():
    return []


@pytest.fixture
def stream(ends):
    def items():
        yield 1
        yield 2
        return "the result"

    return Stream(items(), lambda: ends.append("end"))


def test_a_stream_has_the_items_and_the_result_of_its_generator(stream, ends):
    assert (next(stream), next(stream), ends) == (1, 2, [])
    with pytest.raises(StopIteration) as end:
        next(stream)
    assert (end.value.value, ends) == ("the result", ["end"])


@pytest.mark.parametrize("read", [0, 1, 2])
def test_a_stream_can_be_closed_before_any_item(stream, ends, read):
    for _ in range(read):
        next(stream)
    stream.close()
    assert ends == ["end"]
    assert list(stream) == []


def test_an_error_ends_a_stream(ends):
    def items():
        yield 1
        raise OSError("gone")

    stream = Stream(items(), lambda: ends.append("end"))
    with pytest.raises(OSError, match="gone"):
        list(stream)
    assert ends == ["end"]


# --- the rows of streams --------------------------------------------------------------------------


@pytest.fixture
def scripted(make_engine):
    """A scorer of an engine with one free row, and the event that lets its passes go on."""
    gate = threading.Event()
    engine = make_engine("x" * LONG, gate=gate, max_rows=1, max_waiting=1)
    yield SimpleNamespace(engine=engine, gate=gate, scorer=score.Scorer(engine, "bytes"))
    gate.set()


@pytest.mark.parametrize("read", [0, 1])
def test_a_closed_stream_ends_its_row(scripted, read):
    scripted.gate.set()
    pieces = scripted.engine.stream([65], GenerationParams(max_new_tokens=LONG))
    for _ in range(read):
        next(pieces)
    pieces.close()
    wait_until(lambda: not scripted.engine._running() and not scripted.engine._waiting)
    assert len(scripted.engine._backend.passes) < LONG


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize("wrap", [lambda events: events, score.sse])
def test_closed_events_end_the_row(scripted, wrap, read):
    """The first event is sent before the first text."""
    events = wrap(scripted.scorer.stream(HI))
    for _ in range(read):
        next(events)
    assert scripted.engine._backend.started.wait(HANG_S)
    events.close()
    scripted.gate.set()
    wait_until(lambda: not scripted.engine._running())
    assert len(scripted.engine._backend.passes) < LONG


def test_events_that_fail_end_the_row(scripted, monkeypatch):
    monkeypatch.setattr(score.ChatAnswer, "text_events", lambda *_: 1 / 0)
    scripted.gate.set()
    assert "server_error" in list(score.sse(scripted.scorer.stream(HI)))[-1]
    wait_until(lambda: not scripted.engine._running())
    assert len(scripted.engine._backend.passes) < LONG


@pytest.fixture
def no_wait(monkeypatch):
    monkeypatch.setattr(streams, "ABANDONED_POLL_S", 0.001)


def test_a_stream_that_waits_leaves_the_queue_when_its_client_has_gone(scripted, no_wait):
    engine, params = scripted.engine, GenerationParams(max_new_tokens=LONG)
    running = engine.stream([65], params)
    assert engine._backend.started.wait(HANG_S)
    waiting = engine.stream([66], params, is_abandoned=lambda: True)
    assert list(waiting) == []
    assert not engine._waiting
    running.close()


def test_a_stream_without_text_ends_when_its_client_has_gone(scripted, no_wait):
    """A stop string holds the text back, so nothing is sent in which the client could be missed."""
    scripted.gate.set()
    params = GenerationParams(max_new_tokens=LONG, stop=("x" * LONG + "y",))
    stream = scripted.engine.stream([65], params, lambda: len(scripted.engine._backend.passes) > 9)
    text = "".join(stream)
    assert 0 < len(text) < LONG
