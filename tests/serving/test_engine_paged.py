"""The engine over a backend whose rows take memory in pages."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine import BatchingEngine
from sampling import GenerationParams

from byte_backend import HANG_S, ByteBackend
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
    with ThreadPoolExecutor() as pool:
        short = pool.submit(engine.generate, [list(b"abc")], GenerationParams(max_new_tokens=20))
        assert engine._backend.started.wait(HANG_S)
        long = pool.submit(engine.generate, [list(b"0123456789")], GenerationParams())
        wait_until(lambda: engine._waiting)
        gate.set()
        assert [answer.text for answer in short.result(HANG_S)] == ["abc"]
        assert [answer.text for answer in long.result(HANG_S)] == ["0123456789"]
    shared = [item for item in engine._backend.passes if list(b"0123") in item]
    assert [len(item) for item in shared] == [2]


def test_a_failed_shared_pass_fails_all_of_its_rows(make_engine):
    gate = threading.Event()
    engine = make_engine(gate=gate, prefill_chunk=4)
    with ThreadPoolExecutor() as pool:
        short = pool.submit(engine.generate, [list(b"abc")], GenerationParams(max_new_tokens=20))
        assert engine._backend.started.wait(HANG_S)
        long = pool.submit(engine.generate, [list(b"failfail")], GenerationParams())
        wait_until(lambda: engine._waiting)
        gate.set()
        for answers in (short, long):
            with pytest.raises(RuntimeError, match="out of memory"):
                answers.result(HANG_S)
    assert engine.generate([list(b"ok")], GenerationParams())[0].text == "ok"


def test_a_row_reserves_only_what_it_can_need(make_engine):
    engine = make_engine("ok", max_cache_bytes=2 * 512)
    prompts = [[65 + n] for n in range(20)]
    params = GenerationParams(max_new_tokens=127)
    assert [c.text for c in engine.generate(prompts, params)] == ["ok"] * 20
    assert max(engine.batch_sizes) == 2 * 512 // 128
    assert engine.generate([[65]], GenerationParams(max_new_tokens=5000))[0].text == "ok"
    unlimited = GenerationParams(max_new_tokens=None)
    assert [c.text for c in engine.generate(prompts[:4], unlimited)] == ["ok"] * 4
