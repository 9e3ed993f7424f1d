"""Which questions count as equal or nearly equal to known ones."""

import random
from collections import Counter

import pytest

from phi3_ops.data.near_duplicates import (
    KnownTexts,
    Match,
    comparable_words,
    is_nearly_equal,
)

KNOWN = [
    "What is the capital of France?",
    "In which year was the company Contoso founded by Anna Berg?",
    "¿Cuál es la capital de Perú?",
    "法国的首都是哪里？",
    "?!",
]


@pytest.mark.parametrize(
    ("text", "known", "is_equal"),
    [
        ("what is the capital of france", 0, True),
        ("  WHAT  is the capital of France ?! ", 0, True),
        ("Of France, what is the capital?", 0, True),
        ("What is the captial of France?", 0, False),  # two letters exchanged
        ("What is the capital of Frannce?", 0, False),
        ("Please: what is the capital of France?", 0, False),
        ("In which year was company Contoso founded by Anna Berg?", 1, False),
        ("Cuál es la capital de Perú", 2, True),
        ("法国的首都是哪里", 3, True),
        ("?!", 4, True),
    ],
)
def test_equal_and_nearly_equal_texts_are_found(text, known, is_equal):
    assert KnownTexts(KNOWN).find(text) == Match(KNOWN[known], is_equal)


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of Finland?",
        "What is the capital of Germany, and what is its population?",
        "Which city is the capital of France?",  # another phrasing, as the split holds out
        "德国的首都是哪里？",
        "",
        "!",
    ],
)
def test_other_questions_and_other_phrasings_are_not_found(text):
    assert KnownTexts(KNOWN).find(text) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "What is 12 plus 13 in the decimal system of today?",
            "What is 12 plus 14 in the decimal system of today?",
        ),
        ("Is Iran in Asia?", "Is Iraq in Asia?"),
        ("What is the opposite of 'love' today?", "What is the opposite of 'hate' today?"),
    ],
)
def test_another_number_or_short_word_is_another_question(one, other):
    assert KnownTexts([one]).find(other) is None


def test_the_index_finds_what_a_full_comparison_finds():
    texts = [
        f"How do I return the {item} that I bought in shop {n}?"
        for n in range(60)
        for item in ("lamp", "garden chair", "reading glasses")
    ]
    known = KnownTexts(texts)
    assert len(known) == len(texts)
    for text in texts[::7]:
        assert known.find(text.replace("bought", "bougth")) == Match(text, False)


def test_random_texts_are_found_by_the_index_as_by_comparing_with_each():
    rng = random.Random(7)
    vocabulary = ["price", "prize", "order", "oredr", "lamp", "lamps", "red", "12", "13", "when"]
    vocabulary += ["delivery", "delivry", "return", "where", "the", "shipping", "cost", "costs"]

    def text():
        return " ".join(rng.choice(vocabulary) for _ in range(rng.randrange(3, 14)))

    texts = [text() for _ in range(100)]
    known = KnownTexts(texts)
    counted = [Counter(comparable_words(text)) for text in texts]
    matches = 0
    for _ in range(100):
        words = rng.choice(texts).split()
        words[rng.randrange(len(words))] = rng.choice(vocabulary)
        query = " ".join(words)
        of_query = Counter(comparable_words(query))
        expected = any(is_nearly_equal(of_query, others) for others in counted)
        assert (known.find(query) is not None) == expected
        matches += expected
    assert 5 < matches < 90
