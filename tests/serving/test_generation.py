"""One answer: its tokens, its text piece by piece, and its stop strings."""

import numpy as np
from generation import Detokenizer, Row, StopScanner
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import GenerationParams

from byte_backend import ByteBackend

END = 256
WINDOW = 1000


def decode(ids):
    return bytes(ids).decode(errors="replace")


def make_row(params=None, **options):
    params = params or GenerationParams()
    return Row([65, 66], params, decode, frozenset({END}), WINDOW, **options)


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


def test_a_row_without_a_limit_may_fill_the_window_but_does_not_plan_for_it():
    row = make_row(GenerationParams(max_new_tokens=None))
    assert (row.max_length, row.length_to_plan) == (WINDOW, 2 + 128)
    assert add_text(row, "x" * 2000) == WINDOW - 2
    assert row.length_to_plan == WINDOW
    assert make_row(GenerationParams(max_new_tokens=7)).length_to_plan == 9


def test_log_probabilities_leave_out_the_end_token():
    row = make_row(GenerationParams(logprobs=0))
    logits = np.zeros(300, np.float32)
    for token in (70, END):
        logits[token] += 10 + token
        row.add_token(row.choose(logits))
    row.finish()
    completion = row.completion.result(0)
    assert completion.tokens == 2
    assert [entry.token for entry in completion.logprobs] == [70]


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
