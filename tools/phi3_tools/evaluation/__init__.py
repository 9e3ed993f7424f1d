"""Scores and judging as pure functions: metrics, rubrics, the judge, and parsing of its answers.

Nothing here does I/O or imports promptflow; the caller passes the function that asks the model. The
room may import `client` and `errors`.
"""

from __future__ import annotations

from .judge import Ask, AskWithLogprobs, JudgeOptions, judge_answer, judge_pair, read_replies
from .metrics import Mean, corpus_scores, exact_match, line_scores, mean_of, words
from .readings import SCORE, read_verdict
from .rubrics import (
    RUBRICS,
    fence_code,
    grading_prompt,
    missing_fields,
    select_rubric,
    select_rubrics,
)
from .structured import structured_scores, tool_call_match
from .summary import summarise, summarise_pairs

__all__ = [
    "Ask",
    "AskWithLogprobs",
    "JudgeOptions",
    "Mean",
    "RUBRICS",
    "SCORE",
    "corpus_scores",
    "exact_match",
    "fence_code",
    "grading_prompt",
    "judge_answer",
    "judge_pair",
    "line_scores",
    "mean_of",
    "missing_fields",
    "read_replies",
    "read_verdict",
    "select_rubric",
    "select_rubrics",
    "structured_scores",
    "summarise",
    "summarise_pairs",
    "tool_call_match",
    "words",
]
