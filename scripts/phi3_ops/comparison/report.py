"""A comparison as one HTML file: no script, nothing loaded, whatever a model said shown as text."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ..hashing import sha256_base64
from ..runs import RowsByLine, ScoredRun
from .compare import RUN_LETTERS, Comparison
from .paired_stats import TIE, Array

TEMPLATES = Path(__file__).parent / "templates"
ROWS = 500
SHORT = 400  # characters; a longer text folds
LONGEST = 20_000
BINS = 21
# Formatting characters that turn text round or hide it, and what stays as it is.
_TURNING = frozenset("\u200b\u200e\u200f\u061c\u2028\u2029\ufeff") | {
    chr(code) for span in ((0x202A, 0x202F), (0x2066, 0x206A)) for code in range(*span)
}
_PLAIN = frozenset("\n\t")


def render_report(report: Comparison, *, rows: int = ROWS) -> str:
    """The report as HTML.

    Args:
        report: what was compared.
        rows: lines to show at most: lost ones first, then won ones, the largest difference first.
    """
    entries = report.summary["comparisons"]
    better = [_improvement(report, entry) for entry in entries]
    shown = _order(entries, better)[:rows].tolist()
    lines = _lines(report, better, shown)
    css = (TEMPLATES / "compare.css").read_text(encoding="utf-8") + _filters_css(len(entries))
    digest = sha256_base64(css.encode())
    return _template().render(
        summary=report.summary,
        entries=[
            {**entry, "bar": _bar(report, entry), "bins": _bins(found)}
            for entry, found in zip(entries, better)
        ],
        reach=_reach(report),
        lines=lines,
        filters=[_counts(number, entry, lines) for number, entry in enumerate(entries)],
        failed_lines=sum("f" in line["classes"] for line in lines),
        total=len(report.data),
        css=css,
        style_hash=f"sha256-{digest}",
    )


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": escape_invisible,
        "number": format_number,
        "signed": format_signed,
        "chance": format_p_value,
    }
    environment.globals |= {"SHORT": SHORT, "LONGEST": LONGEST}
    return environment.get_template("compare.html")


# -- text ------------------------------------------------------------------------------------------


def escape_invisible(value: object) -> str:
    """Text in which control characters, and those that turn text round, can be seen: `‹U+202E›`."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(f"‹U+{ord(c):04X}›" if _is_hidden(c) else c for c in text)


def _is_hidden(character: str) -> bool:
    # Cs: half a surrogate pair, which JSON can hold and UTF-8 cannot.
    unseen = character in _TURNING or unicodedata.category(character) in ("Cc", "Cs")
    return unseen and character not in _PLAIN


def format_number(value: float | None) -> str:
    """A score in four digits; a dash where there is none."""
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


def format_signed(value: float | None) -> str:
    """A difference, with its sign."""
    return "–" if value is None else f"{value:+.3g}".replace("-", "−") if value else "0"


def format_p_value(p: float) -> str:
    """A p-value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


# -- lines -----------------------------------------------------------------------------------------


def _improvement(report: Comparison, entry: Mapping[str, Any]) -> Array:
    """How much better the run is, a line; NaN where one of both has no score."""
    name = entry["metric"]
    number = RUN_LETTERS.index(entry["run"])
    difference = report.scores[number][name] - report.scores[0][name]
    return (
        -difference if report.summary["metrics"][name]["higher_is_better"] is False else difference
    )


def _order(entries: Sequence[Mapping[str, Any]], better: Sequence[Array]) -> np.ndarray:
    """Lines by what came of the first comparison: lost, won, the rest; the largest difference first."""
    first = next((found for entry, found in zip(entries, better) if "wins" in entry), None)
    if first is None:
        return np.arange(better[0].size)
    first = np.nan_to_num(first)
    return np.lexsort((-np.abs(first), np.select([first < 0, first > 0], [0, 1], 2)))


def _lines(
    report: Comparison, better: Sequence[Array], shown: Sequence[int]
) -> list[dict[str, Any]]:
    """What the template shows of some lines of the data."""
    answers = [run.answers for run in report.runs]
    errors = [run.errors for run in report.runs]
    found = []
    for line in shown:
        outcomes = _outcomes(report, better, line)
        classes = [f"{outcome}{place}" for place, outcome in outcomes.items()]
        cells = []
        for number, run in enumerate(report.runs):
            won = {
                entry["metric"]: outcomes.get(place)
                for place, entry in enumerate(report.summary["comparisons"])
                if entry["run"] == RUN_LETTERS[number]
            }
            cells.append(
                {
                    "letter": RUN_LETTERS[number],
                    "failed": bool(report.failed[number][line]),
                    "error": errors[number].get(line, ""),
                    "texts": list(_texts(run, answers[number], line, report.data[line])),
                    "scores": [
                        (
                            name,
                            None if np.isnan(values[line]) else float(values[line]),
                            won.get(name),
                        )
                        for name, values in report.scores[number].items()
                    ],
                }
            )
        if any(cell["failed"] for cell in cells):
            classes.append("f")
        row = {"number": line, "data": list(report.data[line].items()), "classes": classes}
        found.append({**row, "cells": cells})
    return found


def _outcomes(report: Comparison, better: Sequence[Array], line: int) -> dict[int, str]:
    """What became of a line in each comparison, by its place; in some there is nothing to win."""
    found = {}
    for place, entry in enumerate(report.summary["comparisons"]):
        value = better[place][line]
        if "wins" in entry and not np.isnan(value):
            tie = abs(value) <= TIE
            found[place] = "tie" if tie else "win" if value > 0 else "loss"
    return found


def _texts(
    run: ScoredRun, answers: RowsByLine, line: int, row: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """What a run said to a line: no numbers, and nothing that the data say already."""
    said = dict(answers.get(line, {}))
    if run.asked:
        said |= {f"scored by: {k}": v for k, v in run.scored.rows.get(line, {}).items()}
    for name, value in said.items():
        handed_on = name in row and row[name] == value
        if not handed_on and value is not None and not isinstance(value, (int, float)):
            yield name, value


# -- filters ---------------------------------------------------------------------------------------


def _counts(
    place: int, entry: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """How many of the shown lines each choice leaves."""
    if "wins" not in entry:
        return None
    names = {outcome: f"{outcome}{place}" for outcome in ("win", "loss", "tie")}
    counts = {
        o: (name, sum(name in line["classes"] for line in lines)) for o, name in names.items()
    }
    return {"run": entry["run"], "metric": entry["metric"], "counts": counts}


def _filters_css(comparisons: int) -> str:
    names = ["f", *(f"{o}{place}" for place in range(comparisons) for o in ("win", "loss", "tie"))]
    return "".join(
        f".lines:has(#pick-{name}:checked) .listing tbody tr:not(.{name}){{display:none}}\n"
        for name in names
    )


# -- figures ---------------------------------------------------------------------------------------


def _reach(report: Comparison) -> float:
    """How far the scale of the intervals goes to both sides, as a share of a score's range."""
    ends = [
        abs(entry[end]) / width
        for entry in report.summary["comparisons"]
        if (width := _width(report, entry["metric"])) and entry["low"] is not None
        for end in ("low", "high")
    ]
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    return next((step for step in steps if max(ends, default=0) <= step), 1.0)


def _width(report: Comparison, metric: str) -> float | None:
    found = report.summary["metrics"][metric]["range"]
    return found[1] - found[0] if found else None


def _bar(report: Comparison, entry: Mapping[str, Any]) -> dict[str, float] | None:
    """Where an interval lies on a scale from 0 to 200 with no difference at 100."""
    width = _width(report, entry["metric"])
    if not width or entry["low"] is None:
        return None
    lower = report.summary["metrics"][entry["metric"]]["higher_is_better"] is False
    scale = (-100 if lower else 100) / width / _reach(report)
    place = {end: round(100 + entry[end] * scale, 2) for end in ("low", "high", "difference")}
    if "gate" in entry:
        margin = 100 - entry["gate"]["margin"] * abs(scale)
        if margin >= 0:
            place["margin"] = round(margin, 2)
    return place


def _bins(better: Array) -> dict[str, Any] | None:
    """How often which difference occurs; the middle bin holds the ties."""
    better = better[~np.isnan(better)]
    most = float(np.abs(better).max(initial=0))
    if not most:
        return None
    counts, _ = np.histogram(
        better, bins=BINS, range=(-most * BINS / (BINS - 1), most * BINS / (BINS - 1))
    )
    heights = counts / counts.max() * 60
    half = BINS // 2
    bars = [
        {"x": place * 10, "height": round(float(height), 2), "count": int(count),
         "outcome": "loss" if place < half else "win" if place > half else "tie"}
        for place, (height, count) in enumerate(zip(heights, counts))
    ]  # fmt: skip
    return {"most": most, "bars": bars}
