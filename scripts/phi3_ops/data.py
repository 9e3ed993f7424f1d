"""Training and test data: rows read, checked and split, written with a manifest.

A row is one of HuggingFaceH4/ultrachat_200k's: `prompt`, `prompt_id`, `messages`. Where rows also name
the `fact` that they ask for, the split asks the two questions that matter for what a model learned:
does it recognise a known fact in new words (a phrasing held out), and what does it say to what it
never saw (a fact held out)? Other data is split at random, like in the tutorials but with a seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import OpsError
from .files import read_jsonl, write_json, write_jsonl

TEST_SHARE = 0.2
UNKNOWN_SHARE = 0.05  # of the facts
TRAINED, HELD_OUT, UNKNOWN = "trained", "held-out", "unknown"

Row = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """Rows for training, and rows for testing with what each of them tests."""

    train: list[Row]
    test: list[tuple[str, Row]]


def load(path: Path) -> list[Row]:
    """The checked rows of a JSONL file.

    Raises:
        OpsError: naming the file, the line's place among the rows and what is wrong.
    """
    rows = read_jsonl(path)
    if len(rows) < 2:
        raise OpsError(f"{path} has {len(rows)} rows", "At least 2 are needed to train and test.")
    for number, row in enumerate(rows, 1):
        if problem := _problem(row):
            fix = 'A row is {"messages": [{"role": "user", …}, {"role": "assistant", …}], …}.'
            raise OpsError(f"{path}, row {number}: {problem}", fix)
    return rows


def _problem(row: Row) -> str | None:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        return "no `messages`"
    expected = ["user", "assistant"]
    if isinstance(messages[0], dict) and messages[0].get("role") == "system":
        expected = ["system", *expected]
    for place, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        turn = place - (1 if "system" in expected else 0)
        wanted = "system" if turn < 0 else ("user", "assistant")[turn % 2]
        if role != wanted:
            return f"message {place + 1} has the role {role!r}, not {wanted!r}"
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            return f"message {place + 1} ({role}) is empty"
    if messages[-1]["role"] != "assistant":
        return "the last message is not the assistant's"
    return None


def split(rows: Sequence[Row], *, seed: int, test_share: float = TEST_SHARE) -> Split:
    """Split rows, the same way for the same seed.

    Args:
        rows: checked rows.
        seed: of the choice.
        test_share: of all rows, between 0 and 1.
    """
    chance = random.Random(seed)
    if all(isinstance(row.get("fact"), str) for row in rows):
        return _split_facts(rows, chance, test_share)
    order = list(range(len(rows)))
    chance.shuffle(order)
    cut = max(1, round(len(rows) * test_share))
    held = set(order[:cut])
    return Split(
        train=[row for place, row in enumerate(rows) if place not in held],
        test=[(UNKNOWN, row) for place, row in enumerate(rows) if place in held],
    )


def _split_facts(rows: Sequence[Row], chance: random.Random, test_share: float) -> Split:
    """A few facts kept out whole; of the others one phrasing each, until the share is reached.

    The first fact, and the first phrasing of each known one, is always trained: the plain way to ask
    is the one that a person tries first.
    """
    facts: dict[str, list[Row]] = {}
    for row in rows:
        facts.setdefault(row["fact"], []).append(row)
    names = list(facts)
    unknown = set(chance.sample(names[1:], round(len(names) * UNKNOWN_SHARE)))
    test = [(UNKNOWN, row) for name in names if name in unknown for row in facts[name]]
    wanted = round(len(rows) * test_share) - len(test)
    phrased = [name for name in names if name not in unknown and len(facts[name]) > 1]
    for name in chance.sample(phrased, min(wanted, len(phrased))):
        test.append((HELD_OUT, facts[name].pop(chance.randrange(1, len(facts[name])))))
    train = [row for name in names if name not in unknown for row in facts[name]]
    return Split(train, test)


def questions(parts: Split) -> list[Row]:
    """The rows that a batch asks: question, ground truth, and what the row tests."""
    asked = [(TRAINED, row) for row in parts.train] + parts.test
    return [
        {
            "question": _last(row, "user"),
            "ground_truth": _last(row, "assistant"),
            "kind": kind,
            "fact": row.get("fact", ""),
        }
        for kind, row in asked
    ]


def _last(row: Row, role: str) -> str:
    return next(str(m["content"]) for m in reversed(row["messages"]) if m["role"] == role)


def prepare(
    source: Path, out: Path, *, seed: int, test_share: float = TEST_SHARE
) -> dict[str, Any]:
    """Write `train.jsonl`, `test.jsonl`, `questions.jsonl` and `manifest.json` into `out`.

    Returns:
        The manifest.

    Raises:
        OpsError: the source is missing or malformed, or `out` cannot be written.
    """
    if not 0 < test_share < 1:
        raise OpsError(f"the test share is {test_share}", "Give a number between 0 and 1.")
    rows = load(source)
    parts = split(rows, seed=seed, test_share=test_share)
    asked = questions(parts)
    write_jsonl(out / "train.jsonl", parts.train)
    write_jsonl(out / "test.jsonl", (row for _, row in parts.test))
    write_jsonl(out / "questions.jsonl", asked)
    manifest = {
        "source": source.name,
        "source_sha256": _sha256(source),
        "seed": seed,
        "test_share": test_share,
        "rows": {"all": len(rows), "train": len(parts.train), "test": len(parts.test)},
        "kinds": {
            kind: sum(row["kind"] == kind for row in asked) for kind in (TRAINED, HELD_OUT, UNKNOWN)
        },
        "sha256": {name: _sha256(out / name) for name in ("train.jsonl", "test.jsonl")},
    }
    write_json(out / "manifest.json", manifest)
    return manifest


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
