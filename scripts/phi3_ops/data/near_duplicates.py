"""Find texts that are equal or nearly equal to known ones: test questions, or questions of other rows.

Two texts are equal if they have the same words: case, punctuation and the order of the words make no
difference. They are nearly equal if they share most words, as a multiset, where a typing error counts as
the same word. Texts with different numbers are never nearly equal. A question in other words is another
question: the split of `phi3 data` holds such phrasings out on purpose.

The similarity is that of Jaccard, which is usual for near-duplicates; see "On the resemblance and
containment of documents" (Broder, 1997).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

THRESHOLD = 0.85  # a text of six words may have one word more, and one of thirteen another word
MAX_TYPING_ERRORS = 2  # words of a text
_SHORTEST_WITH_ERROR = 5  # characters: a shorter word with another letter is often another word


@dataclass(frozen=True)
class Match:
    """A known text, and whether it is equal to the text that was looked up, or only nearly."""

    text: str
    is_equal: bool


class KnownTexts:
    """A set of texts that finds those equal or nearly equal to another text.

    Args:
        texts: the texts to begin with.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts: list[str] = []
        self._words: list[Counter[str]] = []
        self._texts_with_word: dict[str, list[int]] = {}
        self._equal: dict[str, int] = {}
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """Add a text."""
        number, words = len(self._texts), Counter(comparable_words(text))
        self._texts.append(text)
        self._words.append(words)
        self._equal.setdefault(_key(words), number)
        for word in words:
            self._texts_with_word.setdefault(word, []).append(number)

    def find(self, text: str) -> Match | None:
        """Return a text that is equal, else one that is nearly equal, else None."""
        words = Counter(comparable_words(text))
        if (number := self._equal.get(_key(words))) is not None:
            return Match(self._texts[number], True)
        for number in self._candidates(words):
            if is_nearly_equal(words, self._words[number]):
                return Match(self._texts[number], False)
        return None

    def _candidates(self, words: Counter[str]) -> list[int]:
        """Return the texts that share one of the rarest words: a text that shares none is different.

        A nearly equal text lacks so few of the words that it has at least one of any selection that is
        larger than that number.
        """
        total = words.total()
        missing = total - math.ceil(THRESHOLD * total) + MAX_TYPING_ERRORS
        by_rarity = sorted(words, key=lambda word: len(self._texts_with_word.get(word, ())))
        numbers: set[int] = set()
        selected = 0
        for word in by_rarity:
            if selected > missing:
                break
            selected += words[word]
            numbers.update(self._texts_with_word.get(word, ()))
        return sorted(numbers)


def comparable_text(text: str) -> str:
    """Return the words of a text in their order: equal for texts that differ in case and punctuation."""
    return " ".join(comparable_words(text))


def comparable_words(text: str) -> list[str]:
    """Return the words of a text as they are compared; a text without words is one word."""
    from phi3_tools.evaluation import words  # here, because `phi3 data --help` imports this module

    return words(text) or [text.strip()]


def is_nearly_equal(words: Counter[str], others: Counter[str]) -> bool:
    """Return whether two multisets of words are those of nearly equal texts."""
    only_here, only_there = words - others, others - words
    if _has_number(only_here) or _has_number(only_there):
        return False
    total, other_total = words.total(), others.total()
    if min(total, other_total) < THRESHOLD * max(total, other_total):
        return False
    shared = (words & others).total() + _typing_errors(only_here, only_there)
    return shared >= THRESHOLD * (total + other_total - shared)


def _key(words: Counter[str]) -> str:
    return " ".join(sorted(words.elements()))


def _has_number(words: Counter[str]) -> bool:
    return any(character.isdigit() for word in words for character in word)


def _typing_errors(words: Counter[str], others: Counter[str]) -> int:
    """Return how many words are words of the other text with one typing error each."""
    rest = list(others)
    errors = 0
    for word in words:
        match = next((other for other in rest if _is_typing_error(word, other)), None)
        if match is not None and errors < MAX_TYPING_ERRORS:
            rest.remove(match)
            errors += 1
    return errors


def _is_typing_error(word: str, other: str) -> bool:
    """Return whether a letter is missing, added or replaced, or two neighbours are exchanged.

    The first letter must be the same.
    """
    shorter, longer = sorted((word, other), key=len)
    if len(shorter) < _SHORTEST_WITH_ERROR or len(longer) - len(shorter) > 1:
        return False
    if shorter[0] != longer[0]:
        return False
    start = next((i for i, (a, b) in enumerate(zip(shorter, longer)) if a != b), len(shorter))
    if len(shorter) != len(longer):
        return shorter[start:] == longer[start + 1 :]
    if shorter[start + 1 :] == longer[start + 1 :]:
        return True
    exchanged = longer[start + 1 : start + 2] + longer[start : start + 1] + longer[start + 2 :]
    return shorter[start:] == exchanged
