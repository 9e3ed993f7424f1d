"""The split: seeded, by first prompt, and with held-out facts and phrasings."""

from __future__ import annotations

import pytest

from phi3_ops.data.split import (
    BY_ANSWER,
    BY_FACT,
    BY_PROMPT,
    HELD_OUT,
    UNKNOWN,
    split_chats,
)
from phi3_ops.errors import OpsError


def split(prompts, facts=None, seed=7, share=0.2, answers=None):
    return split_chats(prompts, facts, answers, seed=seed, test_share=share)


def test_same_seed_same_split_other_seed_other_split():
    assert split(range(50)) == split(range(50))
    assert split(range(50)) != split(range(50), seed=8)


@pytest.mark.parametrize(
    ("count", "share", "tested"), [(10, 0.2, 2), (2, 0.01, 1), (5, 0.5, 2), (2, 0.99, 1)]
)
def test_the_split_follows_the_share_and_leaves_no_side_empty(count, share, tested):
    parts = split(range(count), share=share)
    assert (len(parts.test), len(parts.train)) == (tested, count - tested)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("facts", [None, [str(n % 7) for n in range(60)]])
def test_a_prompt_is_on_one_side(seed, facts):
    prompts = [n % 25 for n in range(60)]
    parts = split(prompts, facts, seed)
    tested = {prompts[n] for _, n in parts.test}
    assert tested and not tested & {prompts[n] for n in parts.train}
    assert sorted([*parts.train, *(n for _, n in parts.test)]) == list(range(60))


def test_prompts_with_many_rows():
    assert len(split([0] * 6 + [1] * 4).test) == 4
    with pytest.raises(OpsError, match="the same first prompt"):
        split([0] * 10)


def test_facts_with_one_phrasing_are_split_like_other_data():
    assert len(split(range(10), [str(n) for n in range(10)]).test) == 2


def test_the_first_fact_and_the_first_phrasings_are_trained():
    facts = [str(n // 3) for n in range(120)]  # 40 facts with 3 phrasings each
    parts = split(range(120), facts)
    unknown = {facts[row] for kind, row in parts.test if kind == UNKNOWN}
    held_out = [row for kind, row in parts.test if kind == HELD_OUT]
    assert len(unknown) == 2 and "0" not in unknown
    assert len(held_out) == 24 - 6 and all(row % 3 for row in held_out)
    assert len({facts[row] for row in held_out}) == len(held_out)
    assert not unknown & {facts[row] for row in parts.train}
    assert parts.groups == BY_FACT


@pytest.mark.parametrize("seed", range(5))
def test_the_first_row_is_trained_and_nothing_is_called_unknown(seed):
    parts = split(range(40), seed=seed)
    assert 0 in parts.train
    assert {kind for kind, _ in parts.test} == {HELD_OUT} and parts.groups == BY_PROMPT


@pytest.mark.parametrize("seed", range(5))
def test_phrasings_of_a_trained_answer_are_held_out(seed):
    answers = [n // 2 for n in range(40)]  # 20 answers with two phrasings each
    parts = split(range(40), seed=seed, answers=answers)
    assert parts.groups == BY_ANSWER and len(parts.test) == 8
    assert {answers[row] for _, row in parts.test} <= {answers[row] for row in parts.train}
    assert 0 in parts.train


def test_labels_are_split_by_the_share():
    labels = [n % 3 for n in range(300)]
    parts = split(range(300), answers=labels)
    assert len(parts.test) == 60 and {labels[row] for row in parts.train} == {0, 1, 2}


def test_few_equal_answers_do_not_decide_the_split():
    answers = [*range(98), 0, 1]
    parts = split(range(100), answers=answers)
    assert parts.groups == BY_PROMPT and len(parts.test) == 20


def test_a_prompt_with_two_answers_is_on_one_side():
    prompts = [n % 20 for n in range(40)]
    parts = split(prompts, answers=[n % 5 for n in range(40)])
    assert parts.groups == BY_ANSWER
    assert not {prompts[n] for n in parts.train} & {prompts[n] for _, n in parts.test}
