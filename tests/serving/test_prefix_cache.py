"""Prefixes that are known are not run again: equal answers, eviction, and the limit of memory."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from engine import BatchingEngine
from prefix_cache import MIB, SHORTEST_PREFIX, PrefixCache, prefix_bytes
from sampling import GenerationParams

from byte_backend import HANG_S, ByteBackend

SYSTEM = "You are a helpful assistant. " * 10
LIMIT = GenerationParams(max_new_tokens=400)


def ask(engine, text, params=LIMIT):
    return engine.generate([engine.encode(text)], params)[0].text


def prompt_tokens_run(engine):
    """Return the number of tokens of each pass that has more than one per row."""
    return [len(ids) for tokens in engine._backend.passes for ids in tokens if len(ids) > 1]


def test_a_shared_system_prompt_is_run_once(make_engine):
    engine = make_engine()
    questions = [SYSTEM + question for question in ("alpha", "beta", "gamma")]
    assert [ask(engine, question) for question in questions] == questions
    first, *others = prompt_tokens_run(engine)
    assert first == len(questions[0])
    assert others == [len("beta"), len("gamma")]


def test_a_chat_goes_on_from_its_last_answer(make_engine):
    engine = make_engine()
    question = SYSTEM[:150]
    chat = question + ask(engine, question)
    follow_up = engine.encode(question) + [1000 + byte for byte in question.encode()]
    engine.generate([[*follow_up, *b"more"]], LIMIT)
    assert len(chat) == 300
    # The answer's last token has no keys and values yet, because no token came after it.
    assert prompt_tokens_run(engine)[1] in (4, 5)


def test_requests_at_once_share_a_prefix_and_get_their_own_answers(make_engine):
    engine = make_engine(prefill_chunk=100)
    questions = [SYSTEM + f"question {number}" for number in range(24)]
    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(lambda text: ask(engine, text), questions)) == questions
    assert sum(prompt_tokens_run(engine)) < 2 * len(SYSTEM) + 24 * 20


def test_a_cancelled_request_leaves_its_prefix_intact(make_engine):
    engine = make_engine()
    stream = engine.stream(engine.encode(SYSTEM + "one?"), LIMIT)
    next(stream)
    stream.close()
    assert ask(engine, SYSTEM + "two?") == SYSTEM + "two?"
    assert ask(engine, SYSTEM + "one?") == SYSTEM + "one?"


def test_rows_with_other_rotary_factors_do_not_share_prefixes(make_engine):
    engine = make_engine(short_window=400)
    texts = [SYSTEM + "one?", SYSTEM + "x" * 200, SYSTEM + "two?"]
    params = GenerationParams(max_new_tokens=50)
    assert [ask(engine, text, params) for text in texts] == [text[:50] for text in texts]
    assert prompt_tokens_run(engine)[:2] == [len(texts[0]), len(texts[1])]


def test_models_answer_from_a_known_prefix_as_from_the_start(each_engine):
    prefix = each_engine.encode("What is the capital of France? " * 20)[:200]
    prompts = [prefix + each_engine.encode(f"Question {number}: why?") for number in range(8)]
    params = GenerationParams(max_new_tokens=24)
    plain = BatchingEngine(each_engine._backend)
    plain._prefixes = PrefixCache(NoMemory(each_engine._backend))
    try:
        expected = [plain.generate([prompt], params)[0].text for prompt in prompts]
        assert plain._prefixes.tokens == 0
    finally:
        plain.close()
    each_engine.generate([prompts[0]], params)
    assert all(each_engine._prefixes.find(prompt) for prompt in prompts)
    one_by_one = [each_engine.generate([prompt], params)[0].text for prompt in prompts]
    together = [completion.text for completion in each_engine.generate(prompts, params)]
    assert one_by_one == together == expected


class NoMemory:
    """A backend whose prefixes may take no memory."""

    def __init__(self, backend):
        self.max_cache_bytes, self.bytes_per_token = 0, backend.bytes_per_token
        self.rotary_key = backend.rotary_key


def make_cache_of(backend, tokens):
    cache = backend.make_cache(1, len(tokens))
    cache.slots[0] = list(tokens)
    return cache


def keep(prefixes, backend, tokens):
    prefixes.keep(tokens, make_cache_of(backend, tokens), 0, backend.rotary_key(len(tokens)))


@pytest.fixture
def backend():
    return ByteBackend(max_cache_bytes=4 * 1000)  # 1000 tokens of prefixes


@pytest.mark.parametrize(
    ("cache", "prefixes"), [(400, 100), (2048, 512), (12 * 1024, 512), (64 * 1024, 2048)]
)
def test_prefixes_take_a_part_of_the_memory(cache, prefixes):
    assert prefix_bytes(cache * MIB) == prefixes * MIB


def test_the_least_recently_used_prefix_is_dropped_first(backend):
    prefixes = PrefixCache(backend)
    rows = [[number] * 400 for number in range(3)]
    keep(prefixes, backend, rows[0])
    keep(prefixes, backend, rows[1])
    assert prefixes.find(rows[0])
    keep(prefixes, backend, rows[2])
    assert prefixes.tokens == 800
    assert [bool(prefixes.find(row)) for row in rows] == [True, False, True]


@pytest.mark.parametrize("length", [SHORTEST_PREFIX - 1, 1001])
def test_short_rows_and_rows_beyond_the_limit_are_not_kept(backend, length):
    prefixes = PrefixCache(backend)
    keep(prefixes, backend, [1] * length)
    assert prefixes.tokens == 0


def test_a_longer_row_replaces_the_prefix_that_it_continues(backend):
    prefixes = PrefixCache(backend)
    keep(prefixes, backend, [1] * 200)
    keep(prefixes, backend, [1] * 220)  # mostly known
    assert prefixes.tokens == 200
    keep(prefixes, backend, [1] * 400)
    assert prefixes.tokens == 400


def test_prefixes_give_way_to_rows(make_engine):
    engine = make_engine(max_cache_bytes=32 * 400)
    text = SYSTEM + "one?"
    assert ask(engine, text) == text
    assert engine._prefixes.tokens > 0
    with ThreadPoolExecutor(24) as pool:
        futures = [pool.submit(ask, engine, f"{n}" * 99) for n in range(24)]
        assert [future.result(HANG_S) for future in futures] == [f"{n}" * 99 for n in range(24)]
    tokens = engine._prefixes.tokens + sum(b.slots * b.length for b in engine._batches.values())
    assert tokens <= 32 * 400


def test_prefixes_are_kept_if_a_row_has_to_wait_without_them_as_well(make_engine):
    engine = make_engine(max_cache_bytes=32 * 400)
    text = SYSTEM + "one?"
    assert ask(engine, text) == text
    tokens = engine._prefixes.tokens
    engine._backend.text = [120] * 100_000
    params = GenerationParams(max_new_tokens=8000)
    running, waiting = engine.stream([65], params), engine.stream([66], params)
    for _ in range(9):
        next(running)
    with engine._changed:
        assert len(engine._waiting) == 1
        assert engine._prefixes.tokens == tokens > 0
    for stream in (running, waiting):
        stream.close()
