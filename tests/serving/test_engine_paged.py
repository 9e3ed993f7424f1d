"""The engine over a backend whose rows take memory in pages."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine import BatchingEngine
from sampling import GenerationParams

from byte_backend import ANSWER, HANG_S, ByteBackend
from polling import wait_until


@pytest.fixture
def make_engine():
    engines = []

    def make(*args, **backend_options):
        engines.append(BatchingEngine(ByteBackend(*args, is_paged=True, **backend_options)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def test_a_chunk_and_the_tokens_of_other_rows_share_a_pass(make_engine):
    gate = threading.Event()
    engine = make_engine(gate=gate, prefill_chunk=4)
    with ThreadPoolExecutor(16) as pool:
        short = pool.submit(engine.generate, [list(b"abc")], GenerationParams(max_new_tokens=20))
        assert engine._backend.started.wait(HANG_S)
        long = pool.submit(engine.generate, [list(b"0123456789")], GenerationParams())
        wait_until(lambda: engine._waiting)
        gate.set()
        assert [answer.text for answer in short.result(HANG_S)] == ["abc"]
        assert [answer.text for answer in long.result(HANG_S)] == ["0123456789"]
    shared = [item for item in engine._backend.passes if list(b"0123") in item]
    assert [len(item) for item in shared] == [2]


def test_a_prompt_that_fails_in_a_shared_pass_fails_alone(make_engine):
    gate = threading.Event()
    engine = make_engine(gate=gate, prefill_chunk=4)
    with ThreadPoolExecutor(16) as pool:
        short = pool.submit(engine.generate, [list(b"abc")], GenerationParams(max_new_tokens=20))
        assert engine._backend.started.wait(HANG_S)
        long = pool.submit(engine.generate, [list(b"failfail")], GenerationParams())
        wait_until(lambda: engine._waiting)
        gate.set()
        with pytest.raises(RuntimeError, match="out of memory"):
            long.result(HANG_S)
        assert [answer.text for answer in short.result(HANG_S)] == ["abc"]
    assert engine.generate([list(b"ok")], GenerationParams())[0].text == "ok"


def run_beside_another(engine, prompt):
    """Return the passes of a prompt that starts while another answer is generated, and its answer."""
    gate = engine._backend.gate = threading.Event()
    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(engine.generate, [list(b"abcdef")], GenerationParams())
        assert engine._backend.started.wait(HANG_S)
        second = pool.submit(engine.generate, [list(prompt)], GenerationParams())
        wait_until(lambda: engine._waiting)
        gate.set()
        assert [answer.text for answer in first.result(HANG_S)] == ["abcdef"]
        passes = [item for item in engine._backend.passes if list(prompt) in item]
        return passes, second


def test_new_prompts_and_the_tokens_of_running_rows_share_a_pass(make_engine):
    engine = make_engine()
    (shared,), second = run_beside_another(engine, b"xyz")
    assert second.result(HANG_S)[0].text == "xyz"
    assert shared == [[ANSWER + ord("a")], list(b"xyz")]
    assert len(engine._backend.passes) == 1 + len("abcdef")


def test_a_prompt_that_fails_beside_running_rows_fails_alone(make_engine):
    passes, second = run_beside_another(make_engine(), b"fail")
    with pytest.raises(RuntimeError, match="out of memory"):
        second.result(HANG_S)
    assert [len(item) for item in passes] == [2, 1]


def test_prompts_that_wait_share_passes_of_a_limited_size(make_engine):
    engine = make_engine("abc", start_tokens=8)
    prompts = [list(b"xyz")] * 5 + [list(b"123456789")]
    assert [answer.text for answer in engine.generate(prompts, GenerationParams())] == ["abc"] * 6
    starts = [[ids for ids in item if ids[0] < ANSWER] for item in engine._backend.passes]
    assert [len(item) for item in starts if item] == [2, 2, 1, 1]


def test_rows_with_different_limits_share_passes(make_engine):
    engine = make_engine("the answer")
    requests = [GenerationParams(max_new_tokens=limit) for limit in (50, 600, 3000)]
    with ThreadPoolExecutor(16) as pool:
        gate = engine._backend.gate = threading.Event()
        answers = [pool.submit(engine.generate, [[65]], requests[0])]
        assert engine._backend.started.wait(HANG_S)
        answers += [pool.submit(engine.generate, [[66 + n]], p) for n, p in enumerate(requests[1:])]
        wait_until(lambda: len(engine._waiting) == 2)
        gate.set()
        assert [answer.result(HANG_S)[0].text for answer in answers] == ["the answer"] * 3
    assert max(engine.batch_sizes) == 3
    assert len(engine.batch_sizes) <= 3 + len("the answer")


def test_rows_that_start_together_reserve_no_more_than_there_is(make_engine):
    limit = 20_000
    engine = make_engine("ok", max_cache_bytes=limit)
    reserved = []
    batch_step = engine._guard

    def guard(work, rows, key=None):
        reserved.append(sum(row.reserved for b in engine._batches.values() for row in b.rows))
        batch_step(work, rows, key)

    engine._guard = guard
    with ThreadPoolExecutor(16) as pool:
        gate = engine._backend.gate = threading.Event()
        first = pool.submit(engine.generate, [[65]], GenerationParams(max_new_tokens=4))
        assert engine._backend.started.wait(HANG_S)
        limits = [8000] * 2 + [2100] * 7
        params = [GenerationParams(max_new_tokens=item) for item in limits]
        answers = [pool.submit(engine.generate, [[66 + n]], p) for n, p in enumerate(params)]
        wait_until(lambda: len(engine._waiting) == len(limits))
        gate.set()
        assert [answer.result(HANG_S)[0].text for answer in [first, *answers]] == ["ok"] * 10
    assert 16_000 < max(reserved) <= limit


def test_a_row_without_a_limit_reserves_more_when_it_needs_more(make_engine):
    text = "x" * 560
    engine = make_engine(text, max_cache_bytes=4096)
    params = GenerationParams(max_new_tokens=None)
    answers = engine.generate([[65], [66], [67]], params)
    assert [answer.text for answer in answers] == [text] * 3
    # Three rows of 2,048 tokens do not fit: one of them waited.
    assert max(engine.batch_sizes) == 3
    assert min(engine.batch_sizes) < 3


def test_a_row_reserves_only_what_it_can_need(make_engine):
    engine = make_engine("ok", max_cache_bytes=2 * 512)
    prompts = [[65 + n] for n in range(20)]
    params = GenerationParams(max_new_tokens=127)
    assert [c.text for c in engine.generate(prompts, params)] == ["ok"] * 20
    assert max(engine.batch_sizes) == 2 * 512 // 128
    assert engine.generate([[65]], GenerationParams(max_new_tokens=5000))[0].text == "ok"
    unlimited = GenerationParams(max_new_tokens=None)
    assert [c.text for c in engine.generate(prompts[:4], unlimited)] == ["ok"] * 4
