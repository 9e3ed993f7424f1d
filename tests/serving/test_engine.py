"""Batching, streaming, stop strings and text, with a scripted backend and with the tiny model."""

import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import numpy as np
import pytest
from engine import BatchingEngine, BusyError
from generation import Detokenizer, Params, StopScanner, draw
from hypothesis import given, settings
from hypothesis import strategies as st

HANG_S = 30  # a limit for what must not hang, never a measurement


SAID = 1000  # the answer's bytes as tokens, apart from the prompt's


class ByteBackend:
    """Tokens are bytes; the answer is `said`, or the prompt again; then the end token 256.

    What comes next is read from the cache alone, so a row that lost its place answers nonsense.
    With a gate it waits before every forward pass, so that a test decides what is in which.
    """

    context_window = 1_000_000
    end_tokens = frozenset({256})
    pad_token = 0
    max_rows, chunk = 16, 512
    token_bytes, cache_bytes = 1, 10_000_000
    turns_at = None  # the length at which the rotary factors change

    def __init__(self, said=None, gate=None, **settings):
        self.said = None if said is None else list(said.encode())
        self.gate = gate
        self.prompts = []  # of each forward pass that began some
        self.passes = []  # the tokens of each forward pass
        self.started = threading.Event()
        for name, value in settings.items():
            setattr(self, name, value)

    def encode(self, text):
        return list(text.encode())

    def render(self, messages):
        return messages[-1]["content"]

    def decode(self, ids):
        return bytes(i - SAID if i >= SAID else i for i in ids).decode(errors="replace")

    def rotary(self, length):
        return self.turns_at is not None and length > self.turns_at

    def make_cache(self, slots, length):
        return ByteCache(self, slots, length)


class ByteCache:
    def __init__(self, backend, slots, length):
        self.backend = backend
        self.length = length
        self.slots = [[] for _ in range(slots)]

    def forward(self, slot, tokens, past):
        backend = self.backend
        backend.passes.append([list(ids) for ids in tokens])
        if not any(past):
            backend.prompts.append([bytes(ids).decode() for ids in tokens if max(ids) < SAID])
        backend.started.set()
        if backend.gate:
            assert backend.gate.wait(HANG_S)
        if list(b"fail") in backend.passes[-1]:
            raise RuntimeError("out of memory")
        for at, (ids, length) in enumerate(zip(tokens, past), slot):
            assert len(self.slots[at]) >= length
            self.slots[at][length:] = ids
            assert len(self.slots[at]) <= self.length
        rows = self.slots[slot : slot + len(tokens)]
        assert len({backend.rotary(len(row)) for row in rows}) == 1 or len(rows) == 1
        return ByteLogits([self.next(row) for row in rows])

    def next(self, row):
        prompt = [i for i in row if i < SAID]
        answer = prompt if self.backend.said is None else self.backend.said
        count = len(row) - len(prompt)
        return SAID + answer[count] if count < len(answer) else 256

    def copy(self, source, from_slot, slot, length):
        self.slots[slot] = source.slots[from_slot][:length]


class ByteLogits:
    def __init__(self, tokens):
        self.tokens = tokens

    def best(self):
        return self.tokens

    def row(self, at):
        return np.eye(SAID + 256, dtype=np.float32)[self.tokens[at]] * 1000


@pytest.fixture
def make_engine():
    engines = []

    def make(*args, max_waiting=256, **kwargs):  # kwargs: ByteBackend's
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


def test_requests_that_arrive_while_others_run_share_the_next_pass(make_engine):
    gate = threading.Event()
    engine = make_engine("ok", gate=gate)
    backend = engine._backend
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(engine.generate, [[65]], Params())
        assert backend.started.wait(HANG_S)
        limits = (1, 2, 3)  # rows may differ in their limits, and in how they are drawn
        rest = [pool.submit(engine.generate, [[66]], Params(max_new_tokens=n)) for n in limits]
        sampled = pool.submit(engine.generate, [[67]], Params(do_sample=True))
        _until(lambda: len(engine._waiting) == 4)
        gate.set()
        assert first.result(HANG_S)[0].text == "ok"
        assert sampled.result(HANG_S)[0].text == "ok"
        assert [f.result(HANG_S)[0].text for f in rest] == ["o", "ok", "ok"]
    assert backend.prompts[0] == ["A"]
    assert sorted(backend.prompts[1]) == ["B", "B", "B", "C"]


def test_a_short_request_is_answered_while_a_long_one_runs(make_engine):
    engine = make_engine("x" * 100_000)
    long = engine.stream([65], Params(max_new_tokens=100_000))
    next(long)
    assert engine.generate([[66]], Params(max_new_tokens=2))[0].text == "xx"
    row = engine._lanes and next(r for lane in engine._lanes.values() for r in lane.rows)
    assert row.tokens[0] == 65, "the long one ended first"
    long.close()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"chunk": 7},  # most prompts are run aside, in pieces
        {"max_rows": 3},
        {"turns_at": 20},  # rows change lanes in the midst
        {"turns_at": 20, "chunk": 7, "cache_bytes": 2 * 512},
    ],
)
def test_every_row_keeps_its_place(make_engine, settings):
    engine = make_engine(**settings)
    random = Random(0)
    texts = [f"{n}:" + "ab" * random.randrange(30) for n in range(60)]
    limits = [random.choice([1, 9, 99, 600]) for _ in texts]

    def ask(text, limit):
        return engine.generate([engine.encode(text)], Params(max_new_tokens=limit))[0]

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, texts, limits))
    assert [a.text for a in answers] == [t[:limit] for t, limit in zip(texts, limits)]
    assert max(engine.batch_sizes) <= engine._backend.max_rows


def test_a_long_prompt_is_run_in_pieces_between_the_others_tokens(make_engine):
    engine = make_engine("x" * 100_000, chunk=10)
    running = engine.stream([65], Params(max_new_tokens=100_000))
    next(running)
    engine.generate([[66] * 95], Params(max_new_tokens=1))
    running.close()
    pieces = [[66] in [ids[:1] for ids in tokens] for tokens in engine._backend.passes]
    assert sum(pieces) == 10
    assert not any(one and two for one, two in zip(pieces, pieces[1:]))


def test_memory_bounds_what_runs_at_once(make_engine):
    engine = make_engine("ok", cache_bytes=2 * 512)
    prompts = [[65 + n] for n in range(10)]
    assert [c.text for c in engine.generate(prompts, Params())] == ["ok"] * 10
    assert max(engine.batch_sizes) == 2
    # More than there is, but nothing else runs: it is tried.
    assert engine.generate([[65]], Params(max_new_tokens=5000))[0].text == "ok"
    assert engine.generate([[65]], Params())[0].text == "ok"


def _until(condition):
    for _ in range(HANG_S * 100):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never happened")


def test_a_long_list_is_answered_in_order(make_engine):
    engine = make_engine(max_waiting=1)
    prompts = [[65 + n] for n in range(26)] * 2
    answers = [c.text for c in engine.generate(prompts, Params())]
    assert "".join(answers) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 2
    assert [len(group) for group in engine._backend.prompts] == [16, 16, 16, 4]


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
    _until(lambda: not engine._running())
    assert len(engine._backend.passes) < 100_000


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


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=30),
    st.floats(0.05, 1),
    st.floats(0, 1, exclude_max=True),
)
def test_a_token_is_drawn_from_the_likeliest_that_make_up_top_p(weights, top_p, at):
    chances = np.array(weights, np.float64) / sum(weights)
    order = np.argsort(-chances, kind="stable")
    kept, total = [], 0.0
    for token in order:
        kept.append(token)
        total += chances[token]
        if total >= top_p - 1e-12:
            break
    drawn = draw(chances, top_p, at)
    assert drawn in kept
    before = sum(chances[t] for t in kept[: kept.index(drawn)])
    assert before - 1e-9 <= at * total <= before + chances[drawn] + 1e-9


# --- the tiny model ---------------------------------------------------------------------------

PROMPTS = [f"Question {n}: " + "why? " * (n * 7 % 60) for n in range(20)]


def test_batched_greedy_answers_are_those_of_one_at_a_time(each_engine):
    engine = each_engine
    prompts = [engine.encode(prompt) for prompt in PROMPTS]
    limits = [Params(max_new_tokens=3 + n % 20) for n in range(len(prompts))]
    alone = [engine.generate([prompt], params)[0] for prompt, params in zip(prompts, limits)]
    engine.batch_sizes.clear()
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(lambda p, s: engine.generate([p], s)[0], prompts, limits))
    assert together == alone
    assert max(engine.batch_sizes) > 1


def test_the_engines_answer_what_transformers_own_generate_does(each_engine, tiny_model_dir):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    for prompt in map(each_engine.encode, PROMPTS[:6]):
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False
        )
        said = out[0, len(prompt) :].tolist()
        answer = each_engine.generate([prompt], Params(max_new_tokens=24))[0]
        ends = each_engine._backend.end_tokens
        assert answer.tokens == len(said)
        assert answer.text == each_engine._backend.decode([t for t in said if t not in ends])


def test_streams_and_whole_answers_share_batches_and_agree(each_engine):
    engine = each_engine
    prompts = [engine.encode(prompt) for prompt in PROMPTS[:8]]
    params = Params(max_new_tokens=20)
    whole = engine.generate(prompts, params)
    with ThreadPoolExecutor(8) as pool:
        streamed = list(pool.map(lambda p: drain(engine.stream(p, params)), prompts))
    assert [("".join(pieces), end) for pieces, end in streamed] == [(c.text, c) for c in whole]


def test_a_seed_decides_a_sampled_answer_whatever_else_runs(each_engine):
    engine = each_engine
    prompt = engine.encode(PROMPTS[0])

    def answers(seed):
        params = Params(max_new_tokens=20, do_sample=True, temperature=1.5, seed=seed)
        return [c.text for c in engine.generate([prompt, prompt], params)]

    alone = answers(1)
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(8) as pool:
        crowd = [pool.submit(engine.generate, [engine.encode(p)], Params(40)) for p in PROMPTS]
        assert answers(1) == alone
        assert answers(2) != alone
        for other in crowd:
            other.result(HANG_S)


def test_an_empty_prompt_has_an_answer(each_engine):
    assert each_engine.generate([[]], Params(max_new_tokens=2))[0].tokens <= 2
