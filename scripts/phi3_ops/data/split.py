"""Split rows into training and test data.

Rows with the same first prompt are always on the same side. If every row names the `fact` that it asks
for, the test data measures two things: whether the model recognises a known fact in new words (a
phrasing is held out), and what it answers about an unknown fact (a fact is held out). Other data is
split at random, as in the tutorials, but with a seed.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from ..errors import OpsError

UNKNOWN_SHARE = 0.05  # of the facts
TRAINED, HELD_OUT, UNKNOWN = "trained", "held-out", "unknown"


@dataclass(frozen=True)
class Split:
    """Row numbers for training, and kind (`HELD_OUT` or `UNKNOWN`) and row number for testing."""

    train: list[int]
    test: list[tuple[str, int]]


def split_chats(
    prompts: Sequence[Hashable],
    facts: Sequence[str] | None = None,
    *,
    seed: int,
    test_share: float,
) -> Split:
    """Split rows; the same seed gives the same split.

    Args:
        prompts: for each row, a value that is equal for equal first prompts.
        facts: for each row, its fact; None if not all rows name one.
        seed: seed of the choice.
        test_share: share of the rows for testing, between 0 and 1.

    Raises:
        OpsError: all rows have the same prompt.
    """
    rng = random.Random(seed)
    parts = _split_facts(prompts, facts, rng, test_share) if facts is not None else None
    return parts if parts and parts.test else _split_prompts(prompts, rng, test_share)


def _split_prompts(prompts: Sequence[Hashable], rng: random.Random, share: float) -> Split:
    groups = list(_grouped(prompts).values())
    if len(groups) < 2:
        raise OpsError(
            "all rows have the same first prompt",
            "Add rows with other prompts: none is left for testing.",
        )
    order = list(range(len(groups)))
    rng.shuffle(order)
    size = min(max(1, round(len(prompts) * share)), len(prompts) - 1)
    test: set[int] = set()
    for index in order:
        if len(test) + len(groups[index]) <= size:
            test.update(groups[index])
        if len(test) == size:
            break
    if not test:  # every prompt has more rows than that
        smallest = min(groups, key=len)
        test.update(smallest)
    return Split(
        train=[row for row in range(len(prompts)) if row not in test],
        test=[(UNKNOWN, row) for row in sorted(test)],
    )


def _split_facts(
    prompts: Sequence[Hashable], facts: Sequence[str], rng: random.Random, share: float
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
    unknown = set(rng.sample(names[1:], round(len(names) * UNKNOWN_SHARE)))
    test = [(UNKNOWN, row) for name in names if name in unknown for row in rows[name]]
    missing = max(0, round(len(prompts) * share) - len(test))  # rows that the share lacks
    rephrased = [name for name in names if name not in unknown and len(phrasings[name]) > 1]
    for name in rng.sample(rephrased, min(missing, len(rephrased))):
        phrasing = phrasings[name].pop(rng.randrange(1, len(phrasings[name])))
        test += [(HELD_OUT, row) for row in phrasing]
    trained = (phrasings[name] for name in names if name not in unknown)
    return Split([row for groups in trained for group in groups for row in group], test)


def _grouped(
    keys: Sequence[Hashable], rows: Iterable[int] | None = None
) -> dict[Hashable, list[int]]:
    """Return key -> rows, in the order of the keys' first rows."""
    groups: dict[Hashable, list[int]] = {}
    for key, row in zip(keys, range(len(keys)) if rows is None else rows):
        groups.setdefault(key, []).append(row)
    return groups
