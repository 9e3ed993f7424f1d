"""Reference-based scores of an answer, and honest means over them. Pure functions.

The normalisation and both scores are those of "SQuAD: 100,000+ Questions for Machine Comprehension of
Text" and its evaluation script: lower case, no punctuation, no articles, single blanks. Other scripts'
punctuation and letter forms (full width, ß and ss) are treated alike, which leaves ASCII as it was.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """Text as it is compared: case, punctuation, articles and blanks made equal."""
    lowered = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(c for c in lowered if not _is_punctuation(c))
    return " ".join(_ARTICLES.sub(" ", bare).split())


def _is_punctuation(character: str) -> bool:
    # SQuAD's script means ASCII's list, which holds symbols too ($, +, =, …).
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def exact_match(answer: str, truth: str) -> float:
    """1.0 where both are the same after `normalise`, else 0.0."""
    return float(normalise(answer) == normalise(truth))


def token_f1(answer: str, truth: str) -> float:
    """Harmonic mean of precision and recall over the words, between 0 and 1.

    Two texts without any word agree (1.0); one without words agrees with nothing else (0.0).
    """
    said, wanted = normalise(answer).split(), normalise(truth).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


@dataclass(frozen=True)
class Mean:
    """A mean over all lines, with what is needed to trust it.

    Attributes:
        n: lines counted, failed ones included.
        mean: their mean; 0.0 over no lines, so that it stays valid JSON.
        stderr: standard error of the mean, 0.0 for fewer than two lines.
    """

    n: int
    mean: float
    stderr: float


def mean_of(scores: Iterable[float], *, failures: int = 0) -> Mean:
    """The mean of scores, where each failed line counts as 0.

    Raises:
        ValueError: failures is negative.
    """
    if failures < 0:
        raise ValueError(f"failures is {failures}, but must not be negative")
    values = [*scores, *[0.0] * failures]
    n = len(values)
    if n == 0:
        return Mean(0, 0.0, 0.0)
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(1, mean, 0.0)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Mean(n, mean, math.sqrt(variance / n))
