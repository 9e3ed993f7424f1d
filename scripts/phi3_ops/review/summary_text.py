"""The summary of a review as titles, lines and tables, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .agreement import Agreement
from .results import JudgeAgreement, ReviewSummary

Section = Mapping[str, Any]


def sections(summary: ReviewSummary) -> list[Section]:
    """Return the summary as titles, lines and tables, for the page and for the terminal."""
    parts = [_ratings_section(summary)]
    parts += [_judge_section(agreement) for agreement in summary.judges]
    if summary.panels:
        lines = [
            f"{panel.rubric}: Krippendorff's alpha {in_words(panel.alpha)} for {len(panel.judges)} judges"
            for panel in summary.panels
        ]
        parts.append(
            {"title": "Agreement of the judges with each other", "lines": lines, "tables": []}
        )
    if not summary.judges:
        line = "No evaluation of these runs has scores by this rubric, so there is no judge to compare."
        parts.append({"title": "Agreement with a judge", "lines": [line], "tables": []})
    return parts


def _ratings_section(summary: ReviewSummary) -> Section:
    rows = [
        [run.run, run.rated, _rounded(run.mean), _rounded(run.stderr), run.edited, run.flagged]
        for run in summary.runs
    ]
    head = ["run", "rated", "mean rating", "standard error", "edited", "flagged"]
    caption = f"Ratings by {summary.rubric}; the data has {summary.lines} lines"
    lines = [
        f"{pair.runs[0]} was better {pair.wins[0]} times, {pair.runs[1]} {pair.wins[1]} times, and both "
        f"were equally good {pair.ties} times (sign test: p = {pair.p_value:.3g})"
        for pair in summary.choices
    ]
    return {
        "title": "Review",
        "lines": lines,
        "tables": [{"caption": caption, "head": head, "rows": rows}],
    }


def _judge_section(agreement: JudgeAgreement) -> Section:
    weights = "without weights" if agreement.bias is None else "with quadratic weights"
    if agreement.scale == "pairs":
        weights = "without weights"
    lines = [f"Cohen's kappa {weights}: {in_words(agreement.kappa)}"]
    if agreement.bias is not None:
        lines.append(f"mean of the judge's score minus the rating: {agreement.bias:+.2f}")
    tables = []
    if agreement.kappa.n:
        rows = [
            [category, *counts] for category, counts in zip(agreement.categories, agreement.table)
        ]
        caption = "Rows are the reviewer's judgements, columns the judge's"
        head = ["reviewer", *(f"judge: {category}" for category in agreement.categories)]
        tables.append({"caption": caption, "head": head, "rows": rows})
    if agreement.disagreements:
        rows = [
            [each.line, each.run, each.question, each.reviewer, each.judge]
            for each in agreement.disagreements
        ]
        head = ["line", "run", "question", "reviewer", "judge"]
        tables.append({"caption": "The largest disagreements", "head": head, "rows": rows})
    title = f"Agreement with {agreement.judge}: {agreement.scale}"
    return {"title": title, "lines": lines, "tables": tables}


def in_words(agreement: Agreement) -> str:
    """Return a coefficient with its interval and its number of units as text."""
    if not agreement.n:
        return "not known, because both have judged no common line"
    if agreement.value is None:
        return f"not defined, because all ratings are the same (n = {agreement.n})"
    if agreement.low is None or agreement.high is None:
        return f"{agreement.value:.2f} (n = {agreement.n})"
    interval = f"95 % interval {agreement.low:.2f} to {agreement.high:.2f}"
    return f"{agreement.value:.2f} ({interval}, n = {agreement.n})"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
