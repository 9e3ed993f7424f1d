"""One answer: its tokens, its text piece by piece, its stop strings, and how a token is drawn."""

import numpy as np
import pytest
from generation import Detokenizer, GenerationParams, Row, StopScanner, draw_token
from hypothesis import given, settings
from hypothesis import strategies as st

from byte_backend import ByteBackend

END = 256


def decode(ids):
    return bytes(ids).decode(errors="replace")


def make_row(params=None, **options):
    params = params or GenerationParams()
    return Row([65, 66], params, decode, frozenset({END}), **options)


def add_text(row, text):
    """Add a text's bytes until the row ends. Return the number of bytes that were added."""
    for count, byte in enumerate(text.encode(), 1):
        if row.add_token(byte):
            return count
    return len(text.encode())


# --- a row ------------------------------------------------------------------------------------


def test_an_answer_ends_with_the_end_token_which_is_counted_but_not_part_of_the_text():
    row = make_row()
    assert add_text(row, "yes") == 3
    assert row.add_token(END)
    row.finish()
    completion = row.completion.result(0)
    assert (completion.text, completion.tokens, completion.finish_reason) == ("yes", 4, "stop")
    assert row.tokens == [65, 66, *b"yes", END]


def test_an_answer_ends_at_max_new_tokens():
    row = make_row(GenerationParams(max_new_tokens=2))
    assert row.max_length == 4
    assert add_text(row, "yes") == 2
    row.finish()
    completion = row.completion.result(0)
    assert (completion.text, completion.tokens, completion.finish_reason) == ("ye", 2, "length")


def test_an_answer_ends_at_a_stop_string_of_several_tokens():
    pieces = []
    row = make_row(GenerationParams(stop=("es",)), on_text=pieces.append)
    assert add_text(row, "yes, yes") == 3
    row.finish()
    completion = row.completion.result(0)
    assert (completion.text, completion.finish_reason) == ("y", "stop")
    assert pieces == ["y"]


def test_a_cancelled_row_ends_at_its_next_token():
    row = make_row()
    assert not row.add_token(65)
    row.cancelled = True
    assert row.add_token(66)


def test_the_seed_and_the_index_determine_what_is_sampled():
    logits = np.zeros(1000, np.float32)

    def sampled(seed, index):
        row = make_row(GenerationParams(do_sample=True, seed=seed), index=index)
        assert not row.greedy
        return [row.sample(logits) for _ in range(5)]

    assert sampled(1, 0) == sampled(1, 0)
    assert sampled(1, 0) != sampled(1, 1)
    assert sampled(1, 0) != sampled(2, 0)
    assert len(set(sampled(-1, 0))) > 1  # a negative seed is valid, too


@pytest.mark.parametrize("temperature", [0.01, 1e-6])
def test_a_low_temperature_samples_the_most_likely_token(temperature):
    row = make_row(GenerationParams(do_sample=True, temperature=temperature))
    assert row.sample(np.array([0, 5, 1], np.float32)) == 1


def test_params_default_to_greedy():
    assert not GenerationParams().do_sample
    assert make_row().greedy


# --- text -------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 255)))
def test_detokenizing_piece_by_piece_equals_detokenizing_at_once(ids):
    backend = ByteBackend()
    detokenizer = Detokenizer(backend.decode)
    pieces = [detokenizer.add(token) for token in ids]
    assert "".join([*pieces, detokenizer.flush()]) == backend.decode(ids)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_detokenizing_with_the_real_tokenizer(scorer, tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=40))
    decode = scorer.engine._backend.decode
    detokenizer = Detokenizer(decode)
    pieces = [detokenizer.add(token) for token in ids]
    assert "".join([*pieces, detokenizer.flush()]) == decode(ids)


@settings(max_examples=200, deadline=None)
@given(st.text("abc"), st.lists(st.text("abc", min_size=1, max_size=3), max_size=2), st.data())
def test_text_ends_before_the_first_stop_string_however_it_is_split(text, stops, data):
    scanner, passed_on, rest = StopScanner(stops), "", text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        passed_on, rest = passed_on + scanner.add(rest[:size]), rest[size:]
        assert not any(stop in passed_on for stop in stops)
    passed_on += scanner.flush()
    if not scanner.stopped:
        assert passed_on == text
    else:
        assert any(text.startswith(passed_on + stop) for stop in stops)


# --- sampling ---------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=30),
    st.floats(0.05, 1),
    st.floats(0, 1, exclude_max=True),
)
def test_a_token_is_drawn_from_the_most_likely_tokens_that_reach_top_p(weights, top_p, point):
    probabilities = np.array(weights, np.float64) / sum(weights)
    order = np.argsort(-probabilities, kind="stable")
    nucleus, total = [], 0.0
    for token in order:
        nucleus.append(token)
        total += probabilities[token]
        if total >= top_p - 1e-12:
            break
    drawn = draw_token(probabilities, top_p, point)
    assert drawn in nucleus
    before = sum(probabilities[t] for t in nucleus[: nucleus.index(drawn)])
    assert before - 1e-9 <= point * total <= before + probabilities[drawn] + 1e-9
