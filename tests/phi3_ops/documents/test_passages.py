"""Passages: their lengths, their positions, and what is left out."""

import random

from phi3_ops.documents.passages import split_documents
from phi3_ops.documents.sections import Section

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa"


def paragraph(number, words=12):
    return " ".join(f"{WORDS.split()[n % 10]}{number}x{n}" for n in range(words)) + "."


def split(text, longest=200, **section):
    return split_documents([("a.md", [Section(text, 100, **section)])], longest)


def test_paragraphs_are_joined_up_to_the_limit_and_keep_their_positions():
    text = "\n\n".join(paragraph(n, 20) for n in range(6))
    passages = split(text, 500, headings=("H",), page=3).passages
    assert all(300 <= len(p.text) <= 500 for p in passages[:-1]) and len(passages) > 1
    for passage in passages:
        assert text[passage.start - 100 : passage.end - 100] == passage.text
        assert (passage.headings, passage.page) == (("H",), 3)
    assert passages[0].location == "a.md, page 3, H"


def test_a_long_paragraph_is_divided_at_the_ends_of_sentences():
    text = " ".join(paragraph(n) for n in range(8))
    passages = split(text, 400).passages
    assert all(p.text.endswith(".") and len(p.text) <= 700 for p in passages)
    assert " ".join(p.text for p in passages) == text


def test_nothing_but_white_space_is_lost_in_any_text():
    rng = random.Random(3)
    for _ in range(200):
        text = "".join(rng.choice("ab .。\n\t") for _ in range(rng.randrange(2_000)))
        longest = rng.randrange(50, 500)
        spans = split_documents([("a", [Section(text, 0)])], longest)
        covered = {n for p in spans.passages for n in range(p.start, p.end)}
        left = "".join(c for n, c in enumerate(text) if n not in covered)
        if not spans.short and not spans.repeated:
            assert not left.strip()
        assert all(len(p.text) <= longest + 300 for p in spans.passages)


def test_short_and_repeated_passages_are_counted():
    section = Section(paragraph(1), 0)
    documents = [("a", [section, Section("too short", 0)]), ("b", [section])]
    result = split_documents(documents)
    assert (len(result.passages), result.short, result.repeated) == (1, 1, 1)
