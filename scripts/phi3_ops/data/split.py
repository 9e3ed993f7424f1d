"""Split rows into training and test data.

Rows with the same first prompt are always on the same side, and the first row is always trained, because
people ask it first. If every row names the `fact` that it asks for, the test data measures two things:
whether the model recognises a known fact in new words (a phrasing is held out), and what it answers about
an unknown fact (a fact is held out). If enough rows have an answer that another row has too, they are
phrasings of one answer, and one of them stays in the training data. Other data is split at random, as in
the tutorials, but with a seed.
"""

from __future__ import annotations

import random
from collections.abc import Container, Hashable, Iterable, Sequence
from dataclasses import dataclass

from ..errors import OpsError

UNKNOWN_SHARE = 0.05  # of the facts
TRAINED, HELD_OUT, UNKNOWN = "trained", "held-out", "unknown"
BY_FACT, BY_ANSWER, BY_PROMPT = "fact", "answer", "prompt"
# Rows are phrasings of answers if they can provide this part of the test rows.
PHRASINGS_SHARE = 0.5


@dataclass(frozen=True)
class Split:
    """The rows for training and for testing.

    Attributes:
        train: row numbers.
        test: kind (`HELD_OUT` or `UNKNOWN`) and row number.
        groups: what rows have in common that belong together: `BY_FACT`, `BY_ANSWER` or `BY_PROMPT`.
    """

    train: list[int]
    test: list[tuple[str, int]]
    groups: str = BY_PROMPT


def split_chats(
    prompts: Sequence[Hashable],
    facts: Sequence[str] | None = None,
    answers: Sequence[Hashable] | None = None,
    *,
    later_facts: Container[str] = (),
    seed: int,
    test_share: float,
) -> Split:
    """Split rows; the same seed gives the same split.

    Args:
        prompts: for each row, a value that is equal for equal first prompts.
        facts: for each row, its fact; None if not all rows name one.
        answers: for each row, a value that is equal for equal first answers; None ignores the answers.
        later_facts: facts that later turns of some rows ask for, which are therefore never unknown.
        seed: seed of the choice.
        test_share: share of the rows for testing, between 0 and 1.

    Raises:
        OpsError: all rows have the same prompt.
    """
    rng = random.Random(seed)
    parts = None
    if facts is not None:
        parts = _split_facts(prompts, facts, later_facts, rng, test_share)
    elif answers is not None:
        parts = _split_answers(prompts, answers, rng, test_share)
    return parts if parts and parts.test else _split_prompts(prompts, rng, test_share)


def _test_size(rows: int, share: float) -> int:
    return min(max(1, round(rows * share)), rows - 1)


def _split_prompts(prompts: Sequence[Hashable], rng: random.Random, share: float) -> Split:
    """Hold out random prompts with all their rows, but never the first prompt."""
    groups = list(_grouped(prompts).values())
    if len(groups) < 2:
        raise OpsError(
            "all rows have the same first prompt",
            "Add rows with other prompts: none is left for testing.",
        )
    order = list(range(1, len(groups)))
    rng.shuffle(order)
    size = _test_size(len(prompts), share)
    test: set[int] = set()
    for index in order:
        if len(test) + len(groups[index]) <= size:
            test.update(groups[index])
        if len(test) == size:
            break
    if not test:  # every prompt has more rows than that
        smallest = min(groups[1:], key=len)
        test.update(smallest)
    return _hold_out(range(len(prompts)), test, BY_PROMPT)


def _hold_out(rows: Iterable[int], test: set[int], groups: str) -> Split:
    """Return the split of rows that holds out the rows in `test`."""
    train = [row for row in rows if row not in test]
    return Split(train, [(HELD_OUT, row) for row in sorted(test)], groups)


def _split_answers(
    prompts: Sequence[Hashable], answers: Sequence[Hashable], rng: random.Random, share: float
) -> Split | None:
    """Hold out random phrasings of answers whose first phrasing is trained.

    Returns:
        The split; None if too few rows are further phrasings of an answer.
    """
    answered: set[Hashable] = set()
    phrasings = []  # for each prompt that may be held out, its rows
    for rows in _grouped(prompts).values():
        new = {answers[row] for row in rows} - answered
        answered |= new
        if not new:
            phrasings.append(rows)
    size = _test_size(len(prompts), share)
    if sum(map(len, phrasings)) < size * PHRASINGS_SHARE:
        return None
    rng.shuffle(phrasings)
    test: set[int] = set()
    for rows in phrasings:
        if len(test) + len(rows) <= size:
            test.update(rows)
    return _hold_out(range(len(prompts)), test, BY_ANSWER)


def _split_facts(
    prompts: Sequence[Hashable],
    facts: Sequence[str],
    later_facts: Container[str],
    rng: random.Random,
    share: float,
) -> Split:
    """Hold out a few facts completely, then one phrasing of other facts until the share is reached.

    The first fact and the first phrasing of each known fact are always in the training data, because
    people try the plain question first.
    """
    fact_of: dict[Hashable, str] = {}  # a prompt for two facts belongs to the first one
    rows: dict[str, list[int]] = {}
    for row, (prompt, fact) in enumerate(zip(prompts, facts)):
        rows.setdefault(fact_of.setdefault(prompt, fact), []).append(row)
    phrasings = {
        fact: list(_grouped([prompts[row] for row in fact_rows], fact_rows).values())
        for fact, fact_rows in rows.items()
    }
    names = list(phrasings)
    candidates = [name for name in names[1:] if name not in later_facts]
    size = min(round(len(names) * UNKNOWN_SHARE), len(candidates))
    unknown = set(rng.sample(candidates, size))
    test = [(UNKNOWN, row) for name in names if name in unknown for row in rows[name]]
    missing = max(0, round(len(prompts) * share) - len(test))  # rows that the share lacks
    rephrased = [name for name in names if name not in unknown and len(phrasings[name]) > 1]
    for name in rng.sample(rephrased, min(missing, len(rephrased))):
        phrasing = phrasings[name].pop(rng.randrange(1, len(phrasings[name])))
        test += [(HELD_OUT, row) for row in phrasing]
    trained = (phrasings[name] for name in names if name not in unknown)
    return Split([row for groups in trained for group in groups for row in group], test, BY_FACT)


def _grouped(
    keys: Sequence[Hashable], rows: Iterable[int] | None = None
) -> dict[Hashable, list[int]]:
    """Return key -> rows, in the order of the keys' first rows."""
    groups: dict[Hashable, list[int]] = {}
    for key, row in zip(keys, range(len(keys)) if rows is None else rows):
        groups.setdefault(key, []).append(row)
    return groups
