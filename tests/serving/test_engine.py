"""Batching and streaming, with a scripted backend and with the tiny model."""

import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from engine_interface import BusyError
from sampling import GenerationParams

from byte_backend import HANG_S
from polling import wait_until


def drain(pieces):
    """Return all pieces of a stream, and its completion."""
    received = []
    while True:
        try:
            received.append(next(pieces))
        except StopIteration as end:
            return received, end.value


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
    pieces, end = drain(engine.stream([1], GenerationParams()))
    assert "".join(pieces) == text == end.text
    assert all(piece in text for piece in pieces)
    assert end == engine.generate([[1]], GenerationParams())[0]
    assert (end.finish_reason, end.tokens) == ("stop", len(text.encode()) + 1)


def test_a_character_cut_off_by_the_limit_becomes_a_replacement_character(make_engine):
    engine = make_engine("a🙂")
    params = GenerationParams(max_new_tokens=3)
    pieces, end = drain(engine.stream([1], params))
    assert pieces == ["a", "\ufffd"]
    assert end.finish_reason == "length"
    assert engine.generate([[1]], params)[0] == end


def test_abandoned_answers_end_and_give_their_rows_back(make_engine):
    """The answers have a million tokens, which would take minutes."""
    engine = make_engine("x" * 1_000_000)
    abandoned = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(engine.generate, [[1], [2]], GenerationParams(), abandoned.is_set)
        wait_until(lambda: len(engine._backend.passes) > 3)
        abandoned.set()
        assert len(answers.result(HANG_S)) == 2
    wait_until(lambda: not engine._running())


def test_abandoned_answers_that_wait_leave_the_queue_at_once(make_engine):
    """Otherwise, they would keep other requests out while long answers run."""
    gate = threading.Event()
    engine = make_engine("ok", gate=gate, max_rows=1, max_waiting=2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(engine.generate, [[65]], GenerationParams())
        assert engine._backend.started.wait(HANG_S)
        second = pool.submit(engine.generate, [[66], [67]], GenerationParams(), lambda: True)
        assert [answer.tokens for answer in second.result(HANG_S)] == [0, 0]
        third = pool.submit(engine.generate, [[68]], GenerationParams())
        gate.set()
        assert first.result(HANG_S)[0].text == third.result(HANG_S)[0].text == "ok"
    assert engine._backend.prompts == [["A"], ["D"]]


def test_a_stop_string_ends_the_answer_and_is_left_out(make_engine):
    engine = make_engine("one END two")
    params = GenerationParams(stop=("END", "never"))
    pieces, end = drain(engine.stream([1], params))
    assert "".join(pieces) == end.text == "one "
    assert end.finish_reason == "stop"
    assert engine.generate([[1]], params)[0] == end


def test_requests_that_arrive_while_others_run_share_the_next_pass(make_engine):
    gate = threading.Event()
    engine = make_engine("ok", gate=gate)
    backend = engine._backend
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(engine.generate, [[65]], GenerationParams())
        assert backend.started.wait(HANG_S)
        limits = (1, 2, 3)  # rows of one batch may differ in their limits and in their sampling
        rest = [
            pool.submit(engine.generate, [[66]], GenerationParams(max_new_tokens=n)) for n in limits
        ]
        sampled = pool.submit(engine.generate, [[67]], GenerationParams(do_sample=True))
        wait_until(lambda: len(engine._waiting) == 4)
        gate.set()
        assert first.result(HANG_S)[0].text == "ok"
        assert sampled.result(HANG_S)[0].text == "ok"
        assert [f.result(HANG_S)[0].text for f in rest] == ["o", "ok", "ok"]
    assert backend.prompts[0] == ["A"]
    assert sorted(backend.prompts[1]) == ["B", "B", "B", "C"]


def test_a_short_request_is_answered_while_a_long_one_runs(make_engine):
    engine = make_engine("x" * 100_000)
    long = engine.stream([65], GenerationParams(max_new_tokens=100_000))
    next(long)
    assert engine.generate([[66]], GenerationParams(max_new_tokens=2))[0].text == "xx"
    running = [row for batch in engine._batches.values() for row in batch.rows]
    assert running[0].tokens[0] == 65, "the long request ended first"
    long.close()


@pytest.mark.parametrize(
    "backend_options",
    [
        {},
        {"prefill_chunk": 7},  # most prompts are run in chunks
        {"max_rows": 3},
        {"short_window": 20},  # rows change batches while they are generated
        {"short_window": 20, "prefill_chunk": 7, "max_cache_bytes": 2 * 512},
    ],
)
def test_no_row_gets_another_rows_answer(make_engine, backend_options):
    engine = make_engine(**backend_options)
    random = Random(0)
    texts = [f"{n}:" + "ab" * random.randrange(30) for n in range(60)]
    limits = [random.choice([1, 9, 99, 600]) for _ in texts]

    def ask(text, limit):
        return engine.generate([engine.encode(text)], GenerationParams(max_new_tokens=limit))[0]

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, texts, limits))
    assert [a.text for a in answers] == [t[:limit] for t, limit in zip(texts, limits)]
    assert max(engine.batch_sizes) <= engine._backend.max_rows


def test_a_long_prompt_is_run_in_chunks_between_the_tokens_of_other_rows(make_engine):
    engine = make_engine("x" * 100_000, prefill_chunk=10)
    running = engine.stream([65], GenerationParams(max_new_tokens=100_000))
    next(running)
    engine.generate([[66] * 95], GenerationParams(max_new_tokens=1))
    running.close()
    is_chunk = [[66] in [ids[:1] for ids in tokens] for tokens in engine._backend.passes]
    assert sum(is_chunk) == 10
    assert not any(first and second for first, second in zip(is_chunk, is_chunk[1:]))


def test_memory_limits_the_rows_that_run_at_once(make_engine):
    engine = make_engine("ok", max_cache_bytes=2 * 512)
    prompts = [[65 + n] for n in range(10)]
    assert [c.text for c in engine.generate(prompts, GenerationParams())] == ["ok"] * 10
    assert max(engine.batch_sizes) == 2
    # This row exceeds the limit, but it is tried, because no other row runs.
    assert engine.generate([[65]], GenerationParams(max_new_tokens=5000))[0].text == "ok"
    assert engine.generate([[65]], GenerationParams())[0].text == "ok"


@pytest.mark.parametrize("prefill_chunk", [512, 100])
def test_answers_without_a_limit_move_to_longer_caches(make_engine, prefill_chunk):
    engine = make_engine(prefill_chunk=prefill_chunk)
    texts = [f"{n}:" + "ab" * n for n in (2000, 1, 190, 600)]
    params = GenerationParams(max_new_tokens=None)
    with ThreadPoolExecutor(len(texts)) as pool:
        answers = list(
            pool.map(lambda text: engine.generate([engine.encode(text)], params)[0], texts)
        )
    assert [answer.text for answer in answers] == texts
    assert {answer.finish_reason for answer in answers} == {"stop"}
    # The caches of 1,000,000 tokens that these rows may fill are never made.
    assert max(length for length, _ in engine._batches) == 8192


def test_an_answer_without_a_limit_ends_with_the_window(make_engine):
    engine = make_engine("x" * 5000, context_window=700)
    answer = engine.generate([[65] * 10], GenerationParams(max_new_tokens=None))[0]
    assert (answer.tokens, answer.finish_reason) == (690, "length")


def test_a_long_list_is_answered_in_order(make_engine):
    engine = make_engine(max_waiting=1)
    prompts = [[65 + n] for n in range(26)] * 2
    answers = [c.text for c in engine.generate(prompts, GenerationParams())]
    assert "".join(answers) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 2
    assert [len(prompts) for prompts in engine._backend.prompts] == [16, 16, 16, 4]


def test_the_queue_is_limited(make_engine):
    gate = threading.Event()
    engine = make_engine("ok", gate=gate, max_waiting=1)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(engine.generate, [[65]], GenerationParams())
        assert engine._backend.started.wait(HANG_S)
        waiting = pool.submit(engine.generate, [[66]], GenerationParams())
        wait_until(lambda: engine._waiting)
        with pytest.raises(BusyError, match="1 requests are waiting"):
            engine.generate([[67]], GenerationParams())
        with pytest.raises(BusyError):
            engine.stream([67], GenerationParams())
        gate.set()
        assert running.result(HANG_S) == waiting.result(HANG_S)


def test_a_failed_batch_fails_its_own_rows_only(make_engine):
    engine = make_engine("ok")
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.generate([list(b"fail")], GenerationParams())
    with pytest.raises(RuntimeError, match="out of memory"):
        list(engine.stream(list(b"fail"), GenerationParams()))
    assert engine.generate([[65]], GenerationParams())[0].text == "ok"


@pytest.mark.parametrize("method", ["_take_waiting", "_find_known", "_remove_outgrown_rows"])
def test_an_unexpected_error_fails_all_requests_but_no_later_ones(make_engine, method, caplog):
    """Otherwise, the engine's thread would end, and every request would wait for ever."""
    gate = threading.Event()
    engine = make_engine("ok" * 99, gate=gate, max_rows=3)
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(engine.generate, [[65]], GenerationParams())
        assert engine._backend.started.wait(HANG_S)
        waiting = pool.submit(engine.generate, [[66]] * 4, GenerationParams())
        wait_until(lambda: engine._waiting)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, method, lambda *_: 1 / 0)
            gate.set()
            for request in (running, waiting):
                with pytest.raises(ZeroDivisionError):
                    request.result(HANG_S)
    assert "the engine failed" in caplog.text
    assert engine.generate([[65]], GenerationParams(max_new_tokens=2))[0].text == "ok"
    assert not engine._waiting


def test_closing_fails_waiting_and_later_requests(make_engine):
    gate = threading.Event()
    engine = make_engine("ok", gate=gate)
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(engine.generate, [[65]], GenerationParams())
        assert engine._backend.started.wait(HANG_S)
        waiting = pool.submit(engine.generate, [[66]], GenerationParams())
        wait_until(lambda: engine._waiting)
        closing = pool.submit(engine.close)
        wait_until(lambda: engine._closed)
        gate.set()
        closing.result(HANG_S)
        assert running.result(HANG_S)[0].text == "ok"
        for request in (waiting.result, lambda _: engine.generate([[67]], GenerationParams())):
            with pytest.raises(BusyError, match="shut down"):
                request(HANG_S)


# --- the tiny model ---------------------------------------------------------------------------

PROMPTS = [f"Question {n}: " + "why? " * (n * 7 % 60) for n in range(20)]


def test_batched_greedy_answers_equal_those_of_single_requests(each_engine):
    engine = each_engine
    prompts = [engine.encode(prompt) for prompt in PROMPTS]
    limits = [GenerationParams(max_new_tokens=3 + n % 20) for n in range(len(prompts))]
    alone = [engine.generate([prompt], params)[0] for prompt, params in zip(prompts, limits)]
    engine.batch_sizes.clear()
    with ThreadPoolExecutor(len(prompts)) as pool:
        batched = list(pool.map(lambda p, s: engine.generate([p], s)[0], prompts, limits))
    assert batched == alone
    assert max(engine.batch_sizes) > 1


def test_both_engines_answer_as_generate_of_transformers_does(each_engine, tiny_model_dir):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    for prompt in map(each_engine.encode, PROMPTS[:6]):
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False
        )
        expected = out[0, len(prompt) :].tolist()
        answer = each_engine.generate([prompt], GenerationParams(max_new_tokens=24))[0]
        backend = each_engine._backend
        assert answer.tokens == len(expected)
        text = backend.decode([token for token in expected if token not in backend.end_tokens])
        assert answer.text == text


def test_streams_and_full_answers_share_batches_and_agree(each_engine):
    engine = each_engine
    prompts = [engine.encode(prompt) for prompt in PROMPTS[:8]]
    params = GenerationParams(max_new_tokens=20)
    full = engine.generate(prompts, params)
    with ThreadPoolExecutor(8) as pool:
        streamed = list(pool.map(lambda p: drain(engine.stream(p, params)), prompts))
    assert [("".join(pieces), end) for pieces, end in streamed] == [(c.text, c) for c in full]


def test_a_seed_determines_a_sampled_answer_regardless_of_other_requests(each_engine):
    engine = each_engine
    prompt = engine.encode(PROMPTS[0])

    def answers(seed):
        params = GenerationParams(max_new_tokens=20, do_sample=True, temperature=1.5, seed=seed)
        return [c.text for c in engine.generate([prompt, prompt], params)]

    alone = answers(1)
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(8) as pool:
        params = GenerationParams(max_new_tokens=40)
        others = [pool.submit(engine.generate, [engine.encode(p)], params) for p in PROMPTS]
        assert answers(1) == alone
        assert answers(2) != alone
        for other in others:
            other.result(HANG_S)


def test_an_empty_prompt_has_an_answer(each_engine):
    assert each_engine.generate([[]], GenerationParams(max_new_tokens=2))[0].tokens <= 2


def test_answers_without_a_limit_equal_those_with_one(each_engine):
    prompts = [each_engine.encode(prompt) for prompt in PROMPTS[:6]]
    for prompt in prompts:
        room = each_engine.context_window - len(prompt)
        limited = each_engine.generate([prompt], GenerationParams(max_new_tokens=room))
        assert each_engine.generate([prompt], GenerationParams(max_new_tokens=None)) == limited


def test_penalties_and_biases_answer_as_generate_of_transformers_does(each_engine, tiny_model_dir):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    prompt = each_engine.encode(PROMPTS[1])
    ids = torch.tensor([prompt])
    bias = {40: 3.0, 41: -3.0}
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=16,
        do_sample=False,
        repetition_penalty=1.4,
        sequence_bias=[[[token], value] for token, value in bias.items()],
    )
    params = GenerationParams(max_new_tokens=16, repetition_penalty=1.4, logit_bias=bias)
    answer = each_engine.generate([prompt], params)[0]
    backend = each_engine._backend
    expected = [t for t in output[0, len(prompt) :].tolist() if t not in backend.end_tokens]
    assert answer.text == backend.decode(expected)


def test_log_probabilities_are_those_of_the_model(each_engine, tiny_model_dir):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    prompt = each_engine.encode(PROMPTS[2])
    answer = each_engine.generate([prompt], GenerationParams(max_new_tokens=6, logprobs=2))[0]
    tokens = [entry.token for entry in answer.logprobs]
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)
    for entry, row in zip(answer.logprobs, expected):
        assert entry.logprob == pytest.approx(row[entry.token].item(), abs=1e-3)
        assert entry.top[0] == (entry.token, entry.logprob)  # the answer is greedy
        assert [value for _, value in entry.top] == pytest.approx(
            row.topk(2).values.tolist(), abs=1e-3
        )


def test_memory_is_given_back_when_no_request_runs(make_engine, monkeypatch):
    monkeypatch.setattr("engine.IDLE_S", 0.01)
    engine = make_engine("ok")
    assert engine.generate([[1]], GenerationParams())[0].text == "ok"
    wait_until(lambda: not engine._batches)
    assert engine._backend.released.wait(HANG_S)
    assert engine.generate([[1]], GenerationParams())[0].text == "ok"
