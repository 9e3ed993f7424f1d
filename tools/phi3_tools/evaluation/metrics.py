"""Reference-based scores of an answer, and means over them. Pure functions.

`exact_match` and `token_f1` follow "SQuAD: 100,000+ Questions for Machine Comprehension of Text" and its
evaluation script: lower case, no punctuation, no articles, single blanks. The F1 is that of
azure-ai-evaluation. The exact match also normalises the punctuation and letter forms of other scripts.
ROUGE-L comes from rouge-score, BLEU and chrF from sacrebleu; both packages are imported on first use.
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
    """Return every score of one answer, by name.

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
    """Return the text as `exact_match` compares it: without case, punctuation, articles, extra blanks."""
    bare = "".join(c for c in _folded(text) if not _is_punctuation(c))
    return " ".join(_ARTICLES.sub(" ", bare).split())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _is_punctuation(character: str) -> bool:
    # SQuAD's script uses the ASCII list, which also contains symbols ($, +, =, …).
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def exact_match(answer: str, truth: str) -> float:
    """Return 1.0 if both texts are equal after `normalise`, else 0.0."""
    return float(normalise(answer) == normalise(truth))


def token_f1(answer: str, truth: str) -> float:
    """Return the harmonic mean of precision and recall over the words, between 0 and 1.

    The result is that of azure-ai-evaluation's `F1ScoreEvaluator`: only ASCII punctuation is removed, and
    a text without words scores 0, also against another text without words.
    """
    answer_words, truth_words = _squad_words(answer), _squad_words(truth)
    common = sum((Counter(answer_words) & Counter(truth_words)).values())
    if not common:
        return 0.0
    precision, recall = common / len(answer_words), common / len(truth_words)
    return 2 * precision * recall / (precision + recall)


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_ASCII_PUNCTUATION)).split()


def words(text: str) -> list[str]:
    """Return the words that ROUGE-L and `length` count.

    For ASCII text they are those of rouge-score's own tokenizer, which drops all other letters. Here the
    letters, marks and digits of every script count. In scripts that are written without blanks, each
    character is a word.
    """
    return "".join(map(_as_word, _folded(text))).split()


def _as_word(character: str) -> str:
    if _UNSPACED.match(character):
        return f" {character} "
    return character if unicodedata.category(character)[0] in "LMN" else " "


def rouge_l(answer: str, truth: str) -> float:
    """Return ROUGE-L, between 0 and 1: the F-measure of the longest common subsequence, not stemmed.

    Raises:
        ConfigError: rouge-score is not installed.
    """
    return float(_rouge_scorer().score(truth, answer)["rougeL"].fmeasure)


def bleu(answer: str, truth: str) -> float:
    """Return sacrebleu's sentence BLEU, between 0 and 100: tokenizer 13a, effective order.

    Raises:
        ConfigError: sacrebleu is not installed.
    """
    scorer = _sacrebleu().BLEU(effective_order=True)
    return float(scorer.sentence_score(answer, [truth]).score)


def chrf(answer: str, truth: str) -> float:
    """Return sacrebleu's sentence chrF (chrF2), between 0 and 100.

    Raises:
        ConfigError: sacrebleu is not installed.
    """
    return float(_sacrebleu().CHRF().sentence_score(answer, [truth]).score)


class _Words:
    """The tokenizer interface of rouge-score."""

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
    """Return sacrebleu's corpus BLEU and chrF, between 0 and 100.

    These are the scores that papers report; they are not means of line scores.

    Args:
        answers: answers, one per line.
        truths: reference answers, one per line.

    Returns:
        `corpus_bleu` and `corpus_chrf`; 0.0 without lines.

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
    """A mean over all lines, with its standard error.

    Attributes:
        n: number of lines, failed ones included.
        mean: the mean; 0.0 without lines, so that it stays valid JSON.
        stderr: standard error of the mean; 0.0 for fewer than two lines.
    """

    n: int
    mean: float
    stderr: float


def mean_of(scores: Iterable[float], *, failures: int = 0) -> Mean:
    """Return the mean of the scores; each failed line counts as 0.

    Args:
        scores: one score per line that did not fail.
        failures: number of failed lines.

    Raises:
        ValueError: `failures` is negative, or a score is not finite.
    """
    if failures < 0:
        raise ValueError(f"failures is {failures}, but must not be negative")
    values = [*scores, *[0.0] * failures]
    if not all(map(math.isfinite, values)):
        raise ValueError("a score is infinite or not a number")
    n = len(values)
    if n == 0:
        return Mean(0, 0.0, 0.0)
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(1, mean, 0.0)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Mean(n, mean, math.sqrt(variance / n))
