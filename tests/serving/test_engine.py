"""Batching, streaming, stop strings and text, with a scripted backend and with the tiny model."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine import BatchingEngine, BusyError, Detokenizer, Params, StopScanner
from hypothesis import given, settings
from hypothesis import strategies as st

HANG_S = 30  # a limit for what must not hang, never a measurement


class ByteBackend:
    """Tokens are bytes; the answer to every prompt is `said`, then the end token 256.

    With a gate it waits before every batch, so that a test decides who is in which.
    """

    context_window = 10_000

    def __init__(self, said="", gate=None):
        self.said = said.encode()
        self.gate = gate
        self.batches = []
        self.started = threading.Event()

    def encode(self, text):
        return list(text.encode())

    def render(self, messages):
        return messages[-1]["content"]

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")

    def batch_class(self, length):
        return "short"

    def run(self, rows):
        self.batches.append([bytes(row.prompt).decode() for row in rows])
        self.started.set()
        if self.gate:
            assert self.gate.wait(HANG_S)
        if b"fail" in bytes(rows[0].prompt):
            raise RuntimeError("out of memory")
        for token in [*self.said, 256]:
            done = [row.push(token, frozenset({256})) for row in rows]
            if all(done):
                return


@pytest.fixture
def make_engine():
    engines = []

    def make(*args, max_waiting=256, **kwargs):
        engines.append(BatchingEngine(ByteBackend(*args, **kwargs), max_waiting))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def drain(pieces):
    """Everything a stream says, and its completion."""
    said = []
    while True:
        try:
            said.append(next(pieces))
        except StopIteration as end:
            return said, end.value


TEXTS = [
    "plain",
    "Österreich",
    "日本の首都は東京です。",
    "🙂🚀👩‍💻 e\u0301",
    "\N{REPLACEMENT CHARACTER}!",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_never_splits_a_character(make_engine, text):
    engine = make_engine(text)
    pieces, end = drain(engine.stream([1], Params()))
    assert "".join(pieces) == text == end.text
    assert all(piece in text for piece in pieces)
    assert end == engine.generate([[1]], Params())[0]
    assert (end.finish_reason, end.tokens) == ("stop", len(text.encode()) + 1)


def test_a_character_cut_off_by_the_limit_shows_as_a_replacement(make_engine):
    engine = make_engine("a🙂")
    params = Params(max_new_tokens=3)
    pieces, end = drain(engine.stream([1], params))
    assert pieces == ["a", "\ufffd"]
    assert end.finish_reason == "length"
    assert engine.generate([[1]], params)[0] == end


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 255)))
def test_detokenizing_piece_by_piece_is_detokenizing_at_once(ids):
    backend = ByteBackend()
    detokenizer = Detokenizer(backend.decode)
    pieces = [detokenizer.push(token) for token in ids]
    assert "".join([*pieces, detokenizer.flush()]) == backend.decode(ids)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_detokenizing_with_the_real_tokenizer(scorer, tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=40))
    decode = scorer.engine._backend.decode
    detokenizer = Detokenizer(decode)
    pieces = [detokenizer.push(token) for token in ids]
    assert "".join([*pieces, detokenizer.flush()]) == decode(ids)


@settings(max_examples=200, deadline=None)
@given(st.text("abc"), st.lists(st.text("abc", min_size=1, max_size=3), max_size=2), st.data())
def test_text_ends_before_the_first_stop_string_however_it_is_cut(text, stops, data):
    scanner, said, rest = StopScanner(stops), "", text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        said, rest = said + scanner.push(rest[:size]), rest[size:]
        assert not any(stop in said for stop in stops)
    said += scanner.flush()
    if not scanner.hit:
        assert said == text
    else:
        assert any(text.startswith(said + stop) for stop in stops)


def test_a_stop_string_ends_the_answer_and_is_left_out(make_engine):
    engine = make_engine("one END two")
    params = Params(stop=("END", "never"))
    pieces, end = drain(engine.stream([1], params))
    assert "".join(pieces) == end.text == "one "
    assert end.finish_reason == "stop"
    assert engine.generate([[1]], params)[0] == end


def test_requests_that_arrive_while_a_batch_runs_share_the_next_one(make_engine):
    gate = threading.Event()
    engine = make_engine("ok", gate=gate)
    backend = engine._backend
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(engine.generate, [[65]], Params())
        assert backend.started.wait(HANG_S)
        limits = (1, 2, 3)  # greedy rows may differ in their limits
        rest = [pool.submit(engine.generate, [[66]], Params(max_new_tokens=n)) for n in limits]
        sampled = pool.submit(engine.generate, [[67]], Params(do_sample=True))
        _until(lambda: len(engine._waiting) == 4)
        gate.set()
        assert first.result(HANG_S)[0].text == "ok"
        assert sampled.result(HANG_S)[0].text == "ok"
        assert [f.result(HANG_S)[0].text for f in rest] == ["o", "ok", "ok"]
    assert sorted(map(len, backend.batches)) == [1, 1, 3]
    assert ["C"] in backend.batches


def _until(condition):
    for _ in range(HANG_S * 100):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never happened")


def test_a_long_list_is_answered_in_order_in_several_batches(make_engine):
    engine = make_engine("ok", max_waiting=1)
    prompts = [[65 + n] for n in range(26)] * 2
    assert [c.text for c in engine.generate(prompts, Params())] == ["ok"] * 52
    assert [len(batch) for batch in engine._backend.batches] == [16, 16, 16, 4]
    assert "".join(sum(engine._backend.batches, [])) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 2


def test_the_queue_is_bounded(make_engine):
    gate = threading.Event()
    engine = make_engine("ok", gate=gate, max_waiting=1)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(engine.generate, [[65]], Params())
        assert engine._backend.started.wait(HANG_S)
        waiting = pool.submit(engine.generate, [[66]], Params())
        _until(lambda: engine._waiting)
        with pytest.raises(BusyError, match="1 requests are waiting"):
            engine.generate([[67]], Params())
        with pytest.raises(BusyError):
            engine.stream([67], Params())
        gate.set()
        assert running.result(HANG_S) == waiting.result(HANG_S)


def test_a_failed_batch_fails_its_own_rows_only(make_engine):
    engine = make_engine("ok")
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.generate([list(b"fail")], Params())
    with pytest.raises(RuntimeError, match="out of memory"):
        list(engine.stream(list(b"fail"), Params()))
    assert engine.generate([[65]], Params())[0].text == "ok"


def test_a_stream_that_nobody_reads_any_more_is_dropped(make_engine):
    engine = make_engine("x" * 100_000)
    pieces = engine.stream([65], Params(max_new_tokens=100_000))
    next(pieces)
    pieces.close()
    engine.generate([[66]], Params(max_new_tokens=1))
    assert engine._backend.batches == [["A"], ["B"]]


def test_closing_fails_what_waits_and_what_comes(make_engine):
    gate = threading.Event()
    engine = make_engine("ok", gate=gate)
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(engine.generate, [[65]], Params())
        assert engine._backend.started.wait(HANG_S)
        waiting = pool.submit(engine.generate, [[66]], Params())
        _until(lambda: engine._waiting)
        closing = pool.submit(engine.close)
        _until(lambda: engine._closed)
        gate.set()
        closing.result(HANG_S)
        assert running.result(HANG_S)[0].text == "ok"
        for late in (waiting.result, lambda _: engine.generate([[67]], Params())):
            with pytest.raises(BusyError, match="shut down"):
                late(HANG_S)


# --- the tiny model ---------------------------------------------------------------------------

PROMPTS = [f"Question {n}: " + "why? " * (n % 5) for n in range(20)]


def test_batched_greedy_answers_are_those_of_one_at_a_time(scorer):
    engine = scorer.engine
    prompts = [engine.encode(prompt) for prompt in PROMPTS]
    limits = [Params(max_new_tokens=3 + n % 20) for n in range(len(prompts))]
    alone = [engine.generate([prompt], params)[0] for prompt, params in zip(prompts, limits)]
    engine.batch_sizes.clear()
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(lambda p, s: engine.generate([p], s)[0], prompts, limits))
    assert together == alone
    assert max(engine.batch_sizes) > 1
    assert engine.generate(prompts, Params(max_new_tokens=9)) == [
        engine.generate([prompt], Params(max_new_tokens=9))[0] for prompt in prompts
    ]


def test_streams_and_whole_answers_share_batches_and_agree(scorer):
    engine = scorer.engine
    prompts = [engine.encode(prompt) for prompt in PROMPTS[:8]]
    params = Params(max_new_tokens=20)
    whole = engine.generate(prompts, params)
    with ThreadPoolExecutor(8) as pool:
        streamed = list(pool.map(lambda p: drain(engine.stream(p, params)), prompts))
    assert [("".join(pieces), end) for pieces, end in streamed] == [(c.text, c) for c in whole]


def test_a_seed_decides_a_sampled_answer(scorer):
    engine = scorer.engine
    prompt = engine.encode(PROMPTS[0])

    def answers(seed):
        params = Params(max_new_tokens=20, do_sample=True, temperature=1.5, seed=seed)
        return [c.text for c in engine.generate([prompt, prompt], params)]

    assert answers(1) == answers(1)
    assert answers(1) != answers(2)


def test_an_empty_prompt_has_an_answer(scorer):
    assert scorer.engine.generate([[]], Params(max_new_tokens=2))[0].tokens <= 2
