"""Scores and judging as pure functions: metrics, rubrics, reading of verdicts, the judge.

It does no I/O and does not import promptflow; the caller passes the function that asks the model.
"""

from __future__ import annotations

from .judge import Ask, Options, WithLogprobs, compare, grade, summarise, summarise_pairs
from .metrics import Mean, corpus_scores, line_scores, mean_of
from .rubrics import RUBRICS, chosen

__all__ = [
    "Ask",
    "Mean",
    "Options",
    "RUBRICS",
    "WithLogprobs",
    "chosen",
    "compare",
    "corpus_scores",
    "grade",
    "line_scores",
    "mean_of",
    "summarise",
    "summarise_pairs",
]
