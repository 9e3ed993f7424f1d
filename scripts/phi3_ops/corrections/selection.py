"""Select the examples that enter the training data, and count why the others do not.

Each example is either taken or excluded for one reason, so that the numbers add up. The reasons are
checked in this order: the form of the chat, the test data, other examples of the same question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from ..data import KnownTexts, Problem, as_preference_chat, check_chat
from ..terminal import is_blank
from .examples import EDIT, THUMB, Example, same_text

# Reasons for an exclusion. Those of `check_chat`, such as `roles out of order`, come in addition.
TEST_QUESTION = "question of the test data"
NEAR_TEST_QUESTION = "nearly a question of the test data"
EMPTY = "empty content"  # also a reason of `check_chat`
DUPLICATE = "duplicate"
EARLIER_CORRECTION = "earlier correction"
CORRECTED = "answer that was corrected"
OTHER_ANSWER = "later answer taken"
CONTRADICTORY = "contradictory choices"


@dataclass(frozen=True)
class Excluded:
    """An excluded example and the reason."""

    example: Example
    reason: str
    detail: str = ""


@dataclass
class Selection:
    """The examples of one output file.

    Attributes:
        taken: the examples that enter the file.
        excluded: the other examples.
    """

    taken: list[Example] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> number of excluded examples, the most frequent first."""
        return dict(Counter(entry.reason for entry in self.excluded).most_common())


def select_rows(examples: Sequence[Example], test: KnownTexts) -> Selection:
    """Select one row per question: the latest correction, else the latest answer with a thumb up.

    Args:
        examples: examples without a rejected answer.
        test: the questions of the test data.
    """
    selection = Selection()
    for group in _by_prompt(_usable(examples, test, selection)):
        corrections = [example for example in group if example.origin.basis != THUMB]
        taken = _latest(corrections or group)
        selection.taken.append(taken)
        for example in group:
            if example is not taken:
                selection.excluded.append(Excluded(example, _reason_for_row(example, taken)))
    return selection


def select_pairs(examples: Sequence[Example], test: KnownTexts) -> Selection:
    """Select pairs: of several corrections of one answer the latest, and no pair in both orders.

    Args:
        examples: examples with a rejected answer.
        test: the questions of the test data.
    """
    selection = Selection()
    usable = _without_earlier_corrections(_usable(examples, test, selection), selection)
    orders: dict[Hashable, set[str]] = {}
    for example in usable:
        orders.setdefault(_unordered(example), set()).add(same_text(example.chosen))
    seen: set[Hashable] = set()
    for example in usable:
        key = (example.prompt, same_text(example.chosen), same_text(example.rejected or ""))
        if len(orders[_unordered(example)]) > 1:
            selection.excluded.append(Excluded(example, CONTRADICTORY))
        elif key in seen:
            selection.excluded.append(Excluded(example, DUPLICATE))
        else:
            seen.add(key)
            selection.taken.append(example)
    return selection


def _usable(examples: Sequence[Example], test: KnownTexts, selection: Selection) -> list[Example]:
    """Return the examples that are well formed and ask no question of the test data."""
    usable = []
    for example in examples:
        if excluded := _malformed(example) or _in_test_data(example, test):
            selection.excluded.append(excluded)
        else:
            usable.append(example)
    return usable


def _malformed(example: Example) -> Excluded | None:
    row = example.to_json()
    chat = row if example.rejected is None else as_preference_chat(row)
    problem = chat if isinstance(chat, Problem) else check_chat(chat)
    if isinstance(problem, Problem):
        return Excluded(example, *problem)
    texts = (example.question, example.chosen, example.rejected)
    if any(text is not None and is_blank(text) for text in texts):
        return Excluded(example, EMPTY, "a text has no visible character")
    return None


def _in_test_data(example: Example, test: KnownTexts) -> Excluded | None:
    """Return the exclusion if a question of any turn is one of the test data, or nearly one."""
    matches = [match for match in map(test.find, example.questions) if match]
    if not matches:
        return None
    match = next((match for match in matches if match.is_equal), matches[0])
    reason = TEST_QUESTION if match.is_equal else NEAR_TEST_QUESTION
    return Excluded(example, reason, match.text)


def _by_prompt(examples: Sequence[Example]) -> list[list[Example]]:
    groups: dict[Hashable, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.prompt, []).append(example)
    return list(groups.values())


def _latest(examples: Sequence[Example]) -> Example:
    """Return the example with the latest time; of several, the last one."""
    return max(enumerate(examples), key=lambda pair: (pair[1].time, pair[0]))[1]


def _reason_for_row(example: Example, taken: Example) -> str:
    if same_text(example.chosen) == same_text(taken.chosen):
        return DUPLICATE
    if example.origin.basis != THUMB:
        return EARLIER_CORRECTION
    return OTHER_ANSWER if taken.origin.basis == THUMB else CORRECTED


def _without_earlier_corrections(
    examples: Sequence[Example], selection: Selection
) -> list[Example]:
    """Exclude all corrections of an answer but the latest; other pairs stay."""
    latest: dict[Hashable, Example] = {}
    for example in examples:
        key = _corrected_answer(example)
        if key is not None and (key not in latest or example.time >= latest[key].time):
            latest[key] = example
    usable = []
    for example in examples:
        key = _corrected_answer(example)
        newest = example if key is None else latest[key]
        if example is newest:
            usable.append(example)
        else:
            equal = same_text(example.chosen) == same_text(newest.chosen)
            selection.excluded.append(Excluded(example, DUPLICATE if equal else EARLIER_CORRECTION))
    return usable


def _corrected_answer(example: Example) -> Hashable | None:
    """Return the answer that a correction replaces, with its question; None for other pairs."""
    if example.origin.basis != EDIT:
        return None
    return example.prompt, same_text(example.rejected or "")


def _unordered(example: Example) -> Hashable:
    """Return a value that is equal for a pair and for the pair in the other order."""
    answers = (same_text(example.chosen), same_text(example.rejected or ""))
    return example.prompt, frozenset(answers)
