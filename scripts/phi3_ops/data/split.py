"""Which rows train, and which test.

Rows with the same first prompt are never on both sides. Where rows also name the `fact` that they ask
for, the split asks the two questions that matter for what a model learned: does it recognise a known
fact in new words (a phrasing held out), and what does it say to what it never saw (a fact held out)?
Other data is split at random, like in the tutorials but with a seed.
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
    """Numbers of the rows for training, and of those for testing with what each of them tests."""

    train: list[int]
    test: list[tuple[str, int]]


def split_chats(
    prompts: Sequence[Hashable],
    facts: Sequence[str] | None = None,
    *,
    seed: int,
    test_share: float,
) -> Split:
    """Split rows, the same way for the same seed.

    Args:
        prompts: of each row, something that is equal for equal first prompts.
        facts: of each row, where all rows name one.
        seed: of the choice.
        test_share: of all rows, between 0 and 1.

    Raises:
        OpsError: all rows have the same prompt.
    """
    chance = random.Random(seed)
    parts = _split_facts(prompts, facts, chance, test_share) if facts is not None else None
    return parts if parts and parts.test else _split_prompts(prompts, chance, test_share)


def _split_prompts(prompts: Sequence[Hashable], chance: random.Random, share: float) -> Split:
    groups = list(_grouped(prompts).values())
    if len(groups) < 2:
        raise OpsError("all rows have the same first prompt", "None is left to test with.")
    order = list(range(len(groups)))
    chance.shuffle(order)
    wanted = min(max(1, round(len(prompts) * share)), len(prompts) - 1)
    held: set[int] = set()
    for place in order:
        if len(held) + len(groups[place]) <= wanted:
            held.update(groups[place])
        if len(held) == wanted:
            break
    if not held:  # every prompt is asked more often than that
        smallest = min(groups, key=len)
        held.update(smallest)
    return Split(
        train=[row for row in range(len(prompts)) if row not in held],
        test=[(UNKNOWN, row) for row in sorted(held)],
    )


def _split_facts(
    prompts: Sequence[Hashable], facts: Sequence[str], chance: random.Random, share: float
) -> Split:
    """A few facts kept out whole; of the others one phrasing each, until the share is reached.

    The first fact, and the first phrasing of each known one, is always trained: the plain way to ask
    is the one that a person tries first.
    """
    fact_of: dict[Hashable, str] = {}  # a prompt that asks for two facts belongs to the first
    rows: dict[str, list[int]] = {}
    for row, (prompt, fact) in enumerate(zip(prompts, facts)):
        rows.setdefault(fact_of.setdefault(prompt, fact), []).append(row)
    phrasings = {
        fact: list(_grouped([prompts[row] for row in own], own).values())
        for fact, own in rows.items()
    }
    names = list(phrasings)
    unknown = set(chance.sample(names[1:], round(len(names) * UNKNOWN_SHARE)))
    test = [(UNKNOWN, row) for name in names if name in unknown for row in rows[name]]
    wanted = max(0, round(len(prompts) * share) - len(test))
    phrased = [name for name in names if name not in unknown and len(phrasings[name]) > 1]
    for name in chance.sample(phrased, min(wanted, len(phrased))):
        held = phrasings[name].pop(chance.randrange(1, len(phrasings[name])))
        test += [(HELD_OUT, row) for row in held]
    kept = (phrasings[name] for name in names if name not in unknown)
    return Split([row for groups in kept for group in groups for row in group], test)


def _grouped(
    keys: Sequence[Hashable], rows: Iterable[int] | None = None
) -> dict[Hashable, list[int]]:
    """Rows by key, in the order in which the keys come."""
    groups: dict[Hashable, list[int]] = {}
    for key, row in zip(keys, range(len(keys)) if rows is None else rows):
        groups.setdefault(key, []).append(row)
    return groups
