"""A batch of rows in one cache, and a long prompt that is run in chunks."""

import pytest
from batching import Batch, Prefill
from generation import Row
from sampling import GenerationParams

from byte_backend import ByteBackend


def make_row(backend, prompt, max_new_tokens=99, **settings):
    params = GenerationParams(max_new_tokens=max_new_tokens, **settings)
    return Row(
        backend.encode(prompt), params, backend.decode, backend.end_tokens, backend.context_window
    )


def make_batch(backend, *rows):
    batch = Batch(backend, 512, backend.rotary_key(1))
    if rows:
        batch.add_rows(rows)
    return batch


def texts_of(batch, rows):
    """Run the batch until it is empty and return the answers."""
    while batch.rows:
        batch.step()
    return [row.completion.result(0).text for row in rows]


@pytest.mark.parametrize(
    ("max_rows", "new_rows", "slots"), [(16, 1, 1), (16, 3, 4), (16, 9, 16), (6, 5, 6), (6, 6, 6)]
)
def test_the_number_of_slots_is_a_power_of_two_or_the_maximum(max_rows, new_rows, slots):
    batch = make_batch(ByteBackend(max_rows=max_rows))
    assert batch.slots_with(new_rows) == slots


def test_the_number_of_slots_never_shrinks():
    backend = ByteBackend("a")
    batch = make_batch(backend, *(make_row(backend, "x") for _ in range(5)))
    assert batch.slots == 8
    while batch.rows:
        batch.step()
    assert batch.slots_with(1) == 8


def test_adding_rows_gives_each_of_them_its_first_token_in_one_pass():
    backend = ByteBackend()
    rows = [make_row(backend, text) for text in ("one", "2", "three")]
    batch = make_batch(backend, *rows)
    assert len(backend.passes) == 1
    assert [row.generated_tokens for row in rows] == [1, 1, 1]
    assert texts_of(batch, rows) == ["one", "2", "three"]


def test_a_row_that_ends_frees_its_slot_for_the_last_row():
    backend = ByteBackend()
    rows = [make_row(backend, text) for text in ("a", "bbbb", "cccc")]
    batch = make_batch(backend, *rows)
    batch.step()  # "a" ends
    assert batch.rows == [rows[2], rows[1]]
    later = make_row(backend, "dd")
    batch.add_rows([later])
    assert texts_of(batch, [*rows, later]) == ["a", "bbbb", "cccc", "dd"]


def test_a_row_can_end_with_its_first_token():
    backend = ByteBackend("abc")
    row = make_row(backend, "x", max_new_tokens=1)
    batch = make_batch(backend, row)
    assert batch.rows == []
    assert row.completion.result(0).text == "a"


class NoAnswer:
    """A constraint that fails at its first token."""

    marks = {}

    def start(self):
        return self

    def allowed(self):
        raise ArithmeticError("no token")


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"logit_bias": {10**9: 1.0}}, IndexError),  # not a token of the model
        ({"constraint": NoAnswer()}, ArithmeticError),
        ({"constraint": NoAnswer(), "logprobs": 1}, ArithmeticError),
    ],
)
def test_a_row_whose_next_token_cannot_be_chosen_fails_alone(params, error):
    backend = ByteBackend()
    first, last = make_row(backend, "first"), make_row(backend, "last")
    wrong = make_row(backend, "x", **params)
    batch = make_batch(backend, first, wrong, last)
    assert batch.rows == [first, last]
    with pytest.raises(error):
        wrong.completion.result(0)
    assert texts_of(batch, [first, last]) == ["first", "last"]


def test_a_row_whose_text_cannot_be_decoded_fails_alone():
    backend = ByteBackend()
    rows = [make_row(backend, text) for text in ("first", "x", "last")]
    rows[1]._decode = lambda _: 1 / 0
    batch = make_batch(backend, *rows)
    assert texts_of(batch, rows[::2]) == ["first", "last"]
    with pytest.raises(ZeroDivisionError):
        rows[1].completion.result(0)


def test_rows_that_outgrow_the_rotary_factors_are_removed():
    backend = ByteBackend("abcdefgh", short_window=6)
    short, long = make_row(backend, "x"), make_row(backend, "xxxx")
    batch = make_batch(backend, short, long)
    assert batch.remove_outgrown_rows() == []
    batch.step()
    batch.step()
    assert len(long.tokens) == 7
    assert batch.remove_outgrown_rows() == [long]
    assert batch.rows == [short]
    assert not long.completion.done()


def test_rows_that_outgrow_the_cache_are_removed():
    backend = ByteBackend("abc" * 200)
    limited, unlimited = make_row(backend, "xx"), make_row(backend, "x" * 500, max_new_tokens=None)
    batch = make_batch(backend, limited, unlimited)
    while len(unlimited.tokens) <= 512:
        assert batch.remove_outgrown_rows() == []
        batch.step()
    assert batch.remove_outgrown_rows() == [unlimited]
    assert batch.rows == [limited]


def test_a_long_prompt_is_run_in_chunks_and_then_joins_a_batch():
    backend = ByteBackend(prefill_chunk=4)
    running = make_row(backend, "run")
    batch = make_batch(backend, running)
    row = make_row(backend, "0123456789")
    prefill = Prefill(backend, row)
    for is_last in (False, False, True):
        logits = prefill.forward()
        assert prefill.advance() == is_last
    assert [len(tokens[0]) for tokens in backend.passes[1:]] == [4, 4, 2]
    batch.add_prefilled_row(row, prefill.cache, logits)
    assert batch.rows == [running, row]
    assert texts_of(batch, [running, row]) == ["run", "0123456789"]


@pytest.mark.parametrize(("length", "chunks"), [(6, [4, 2]), (7, [7])])
def test_a_prompt_beyond_the_short_window_is_run_in_one_piece(length, chunks):
    """Its first chunk would get the rotary factors of short texts, and its last one others."""
    backend = ByteBackend(prefill_chunk=4, short_window=6)
    prefill = Prefill(backend, make_row(backend, "x" * length))
    prefill.forward()
    while not prefill.advance():
        prefill.forward()
    assert [len(tokens) for (tokens,) in backend.passes] == chunks
