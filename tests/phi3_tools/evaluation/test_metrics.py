"""Scores compared with those of other programs, and means."""

from __future__ import annotations

import math
import re
import statistics
import string
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi3_tools import ConfigError
from phi3_tools.evaluation.metrics import (
    Mean,
    _rouge_scorer,
    bleu,
    chrf,
    corpus_scores,
    exact_match,
    line_scores,
    mean_of,
    normalise,
    rouge_l,
    token_f1,
    words,
)

TEXTS = st.text(max_size=40)
WORDS = st.lists(st.sampled_from(["the", "a", "Bill", "Gates", "co-founder", "$5", "!"])).map(
    " ".join
)
ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126))
SCORES = st.lists(st.floats(0, 1), max_size=20)

# Texts that break scorers: empty texts, other scripts, marks, half a surrogate pair, very long texts.
AWKWARD = [
    "",
    " ",
    "\n\t",
    "the",
    "The the a.",
    "Paris",
    "Paris, France!",
    "co-founder don't $5.00",
    "Straße „Wien“ ＡＢＣ",
    "e\u0301te\u0301 été",
    "微软由比尔·盖茨创立。",
    "Microsoft 由比尔·盖茨创立",
    "हिन्दी में उत्तर",
    "ما هي عاصمة النمسا؟",
    "👩‍👩‍👧 and 🇦🇹",
    "a\u202eb\u0000c",
    "\ud800",
    "İstanbul ſ K",
    "NaN",
    "word " * 400,
    "x" * 2000,
    "Bill Gates and Paul Allen founded Microsoft in 1975. " * 10,
]
PAIRS = [(one, other) for one in AWKWARD for other in AWKWARD]
SENTENCES = st.lists(
    st.sampled_from(
        ["The", "cat", "sat", "on", "a", "mat", "Wien", "1975", ",", ".", "été", "你好"]
    ),
    max_size=25,
).map(" ".join)


def squad_normalise(text):
    """`normalize_answer` of SQuAD's evaluate-v2.0.py, as one function."""
    bare = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


@given(ASCII)
def test_normalise_equals_squads_script(text):
    assert normalise(text) == squad_normalise(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat, a dog.", "cat dog"),
        ("co-founder", "cofounder"),
        ("$5 + 1", "5 1"),
        ("a\nnew\tline", "new line"),
        ("Theatre another", "theatre another"),
        ("Straße", "strasse"),
        ("ＡＢＣ。", "abc"),
        ("„Wien“", "wien"),
        ("¿Qué?", "qué"),
        ("the", ""),
        ("", ""),
    ],
)
def test_normalise(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("answer", "truth", "exact", "f1"),
    [
        ("Denver Broncos", "The Denver Broncos!", 1, 1),
        ("Bill Gates and Paul Allen", "Bill Gates", 0, 4 / 7),
        ("Bill Gates", "Bill Gates and Paul Allen", 0, 4 / 7),
        ("gates gates", "gates", 0, 2 / 3),
        ("Paris", "London", 0, 0),
        ("", "London", 0, 0),
        ("the", "", 1, 0),
        ("", "", 1, 0),
        ("„Wien“", "Wien", 1, 0),
    ],
)
def test_scores(answer, truth, exact, f1):
    assert exact_match(answer, truth) == exact
    assert token_f1(answer, truth) == pytest.approx(f1)


@pytest.mark.parametrize("texts", [TEXTS, WORDS], ids=["any", "words"])
def test_bounds_and_symmetry(texts):
    @given(texts, texts)
    def holds(one, other):
        f1, exact = token_f1(one, other), exact_match(one, other)
        assert exact in (0, 1) and 0 <= f1 <= 1
        assert exact == exact_match(other, one)
        assert f1 == pytest.approx(token_f1(other, one))
        assert exact_match(one, one) == 1

    holds()


# -- compared with other programs -----------------------------------------------------------------


@pytest.fixture(scope="module")
def azures_f1():
    from azure.ai.evaluation import F1ScoreEvaluator

    evaluator = F1ScoreEvaluator()
    return lambda answer, truth: evaluator(response=answer, ground_truth=truth)["f1_score"]


def test_f1_equals_azures(azures_f1):
    for answer, truth in PAIRS:
        assert token_f1(answer, truth) == azures_f1(answer, truth), (answer[:30], truth[:30])


@pytest.mark.parametrize("texts", [TEXTS, WORDS, SENTENCES], ids=["any", "words", "sentences"])
def test_f1_equals_azures_on_random_texts(azures_f1, texts):
    @settings(max_examples=60, deadline=None)
    @given(texts, texts)
    def holds(answer, truth):
        assert token_f1(answer, truth) == azures_f1(answer, truth)

    holds()


def sacrebleus(answer, truth):
    import sacrebleu

    return (
        sacrebleu.sentence_bleu(answer, [truth]).score,
        sacrebleu.sentence_chrf(answer, [truth]).score,
    )


def test_bleu_and_chrf_equal_sacrebleus():
    for answer, truth in PAIRS:
        assert (bleu(answer, truth), chrf(answer, truth)) == sacrebleus(answer, truth)


@settings(deadline=None)
@given(SENTENCES | TEXTS, SENTENCES | TEXTS)
def test_bleu_and_chrf_equal_sacrebleus_on_random_texts(answer, truth):
    assert (bleu(answer, truth), chrf(answer, truth)) == sacrebleus(answer, truth)


@settings(deadline=None)
@given(st.lists(st.tuples(SENTENCES | TEXTS, SENTENCES | TEXTS), min_size=1, max_size=8))
def test_corpus_scores_equal_sacrebleus(pairs):
    import sacrebleu

    answers, truths = (list(texts) for texts in zip(*pairs))
    assert corpus_scores(answers, truths) == {
        "corpus_bleu": sacrebleu.corpus_bleu(answers, [truths]).score,
        "corpus_chrf": sacrebleu.corpus_chrf(answers, [truths]).score,
    }


def rouges(answer, truth, tokenizer=None):
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=tokenizer).score(truth, answer)["rougeL"].fmeasure


class Words:
    def tokenize(self, text):
        return words(text)


@settings(deadline=None)
@given(ASCII, ASCII)
def test_rouge_on_ascii_equals_that_of_its_own_tokenizer(answer, truth):
    assert rouge_l(answer, truth) == rouges(answer, truth)


def test_rouge_equals_rouge_score_with_our_words():
    short = [text for text in AWKWARD if len(text) < 1500]
    for answer in short:
        for truth in short:
            assert rouge_l(answer, truth) == rouges(answer, truth, Words())


def test_rouge_of_a_long_text():
    text = " ".join(map(str, range(600)))
    assert rouge_l(text, text) == rouges(text, text) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat_sat, co-founder.", ["the", "cat", "sat", "co", "founder"]),
        ("你好，世界 abc", ["你", "好", "世", "界", "abc"]),
        ("abc你好", ["abc", "你", "好"]),
        ("e\u0301te\u0301 हिन्दी", ["été", "हिन्दी"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_rouge_sees_other_scripts():
    """With rouge-score's own tokenizer both texts are empty, and the score is 0."""
    assert rouge_l("你好世界", "你好") == pytest.approx(2 / 3)
    assert rouges("你好世界", "你好") == 0


def test_line_scores_are_finite_for_every_text():
    for answer, truth in PAIRS:
        scores = line_scores(answer, truth) if len(answer) + len(truth) < 3000 else {}
        assert all(map(math.isfinite, scores.values()))
    assert list(line_scores("a", "b")) == [
        "exact_match",
        "token_f1",
        "rouge_l",
        "bleu",
        "chrf",
        "length",
    ]


def test_threads_get_the_same_scores():
    pairs = [(f"Bill Gates said {n % 7}", f"Paul Allen said {n % 5}") for n in range(200)]
    alone = [line_scores(*pair) for pair in pairs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda pair: line_scores(*pair), pairs)) == alone


@pytest.mark.parametrize(
    ("module", "package", "score"),
    [
        ("rouge_score.rouge_scorer", "rouge-score", rouge_l),
        ("sacrebleu", "sacrebleu", bleu),
        ("sacrebleu", "sacrebleu", chrf),
    ],
)
def test_a_missing_package_is_named(monkeypatch, module, package, score):
    _rouge_scorer.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"{package} is not installed.*pip install {package}"):
        score("a", "b")


def test_corpus_scores_without_answers_are_0():
    assert corpus_scores([], []) == {"corpus_bleu": 0.0, "corpus_chrf": 0.0}


# -- means -----------------------------------------------------------------------------------------


@given(SCORES, st.integers(0, 5))
def test_mean(scores, failures):
    values = [*scores, *[0.0] * failures]
    mean = mean_of(scores, failures=failures)
    assert mean.n == len(values)
    if values:
        assert mean.mean == pytest.approx(statistics.fmean(values))
    if len(values) > 1:
        expected = statistics.stdev(values) / math.sqrt(len(values))
        assert mean.stderr == pytest.approx(expected, abs=1e-9)


def test_means_of_few_lines():
    assert mean_of([]) == Mean(0, 0.0, 0.0)
    assert mean_of([0.5]) == Mean(1, 0.5, 0.0)
    assert mean_of([1.0], failures=1).mean == 0.5
    with pytest.raises(ValueError, match="failures is -1"):
        mean_of([], failures=-1)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(score):
    with pytest.raises(ValueError, match="not a number"):
        mean_of([1.0, score])
