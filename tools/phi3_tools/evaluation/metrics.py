"""Reference-based scores of an answer, and honest means over them. Pure functions.

`exact_match` and `token_f1` follow "SQuAD: 100,000+ Questions for Machine Comprehension of Text" and its
evaluation script: lower case, no punctuation, no articles, single blanks. The F1 is that of
azure-ai-evaluation; the exact match treats other scripts' punctuation and letter forms alike as well.
ROUGE-L is rouge-score's, BLEU and chrF are sacrebleu's: both packages are imported when first needed.
"""

from __future__ import annotations

import functools
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Scripts written without blanks between words: Thai and Lao, Burmese, Khmer, kana, Han.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


# -- one line --------------------------------------------------------------------------------------


def line_scores(answer: str, truth: str) -> dict[str, float]:
    """Every score of one answer, by name.

    Raises:
        ConfigError: rouge-score or sacrebleu is not installed.
    """
    return {
        "exact_match": exact_match(answer, truth),
        "token_f1": token_f1(answer, truth),
        "rouge_l": rouge_l(answer, truth),
        "bleu": bleu(answer, truth),
        "chrf": chrf(answer, truth),
        "length": float(len(words(answer))),
    }


def normalise(text: str) -> str:
    """Text as `exact_match` compares it: case, punctuation, articles and blanks made equal."""
    bare = "".join(c for c in _folded(text) if not _is_punctuation(c))
    return " ".join(_ARTICLES.sub(" ", bare).split())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _is_punctuation(character: str) -> bool:
    # SQuAD's script means ASCII's list, which holds symbols too ($, +, =, …).
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def exact_match(answer: str, truth: str) -> float:
    """1.0 where both are the same after `normalise`, else 0.0."""
    return float(normalise(answer) == normalise(truth))


def token_f1(answer: str, truth: str) -> float:
    """Harmonic mean of precision and recall over the words, between 0 and 1.

    That of azure-ai-evaluation's `F1ScoreEvaluator`: only ASCII's punctuation is dropped, and a text
    without words agrees with nothing, not even with another one.
    """
    said, wanted = _squad_words(answer), _squad_words(truth)
    common = sum((Counter(said) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_ASCII_PUNCTUATION)).split()


def words(text: str) -> list[str]:
    """The words that ROUGE-L and `length` count.

    On ASCII those of rouge-score's own tokenizer, which drops every other letter. Here letters, marks and
    digits of all scripts count, and a character of a script without blanks is a word by itself.
    """
    return "".join(map(_as_word, _folded(text))).split()


def _as_word(character: str) -> str:
    if _UNSPACED.match(character):
        return f" {character} "
    return character if unicodedata.category(character)[0] in "LMN" else " "


def rouge_l(answer: str, truth: str) -> float:
    """ROUGE-L between 0 and 1: F-measure of the longest common subsequence of `words`, not stemmed.

    Raises:
        ConfigError: rouge-score is not installed.
    """
    return float(_rouge_scorer().score(truth, answer)["rougeL"].fmeasure)


def bleu(answer: str, truth: str) -> float:
    """sacrebleu's sentence BLEU, between 0 and 100: tokenizer 13a, effective order.

    Raises:
        ConfigError: sacrebleu is not installed.
    """
    scorer = _sacrebleu().BLEU(effective_order=True)
    return float(scorer.sentence_score(answer, [truth]).score)


def chrf(answer: str, truth: str) -> float:
    """sacrebleu's sentence chrF (chrF2), between 0 and 100.

    Raises:
        ConfigError: sacrebleu is not installed.
    """
    return float(_sacrebleu().CHRF().sentence_score(answer, [truth]).score)


class _Words:
    """What rouge-score asks of a tokenizer."""

    tokenize = staticmethod(words)


@functools.cache
def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    except ImportError as error:
        raise _not_installed("rouge-score") from error
    return RougeScorer(["rougeL"], tokenizer=_Words)


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise _not_installed("sacrebleu") from error
    return metrics


def _not_installed(package: str) -> ConfigError:
    return ConfigError(f"the package {package} is not installed", hint=f"pip install {package}.")


# -- many lines ------------------------------------------------------------------------------------


def corpus_scores(answers: Sequence[str], truths: Sequence[str]) -> dict[str, float]:
    """sacrebleu's corpus BLEU and chrF, between 0 and 100: what is published, and no mean of line scores.

    Args:
        answers: one a line.
        truths: as many.

    Returns:
        `corpus_bleu` and `corpus_chrf`; 0.0 over no lines.

    Raises:
        ConfigError: sacrebleu is not installed.
    """
    if not answers:
        return {"corpus_bleu": 0.0, "corpus_chrf": 0.0}
    scorers = _sacrebleu()
    return {
        "corpus_bleu": float(scorers.BLEU().corpus_score(answers, [truths]).score),
        "corpus_chrf": float(scorers.CHRF().corpus_score(answers, [truths]).score),
    }


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
        ValueError: failures is negative, or a score is not finite.
    """
    if failures < 0:
        raise ValueError(f"failures is {failures}, but must not be negative")
    values = [*scores, *[0.0] * failures]
    if not all(map(math.isfinite, values)):
        raise ValueError("a score is infinite or no number")
    n = len(values)
    if n == 0:
        return Mean(0, 0.0, 0.0)
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(1, mean, 0.0)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Mean(n, mean, math.sqrt(variance / n))
