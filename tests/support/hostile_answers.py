"""Hostile answers of a model, and a comparison of two runs that contain them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

from phi3_ops.comparison.compare import Comparison, ComparisonSettings, compare_runs
from phi3_ops.comparison.thresholds import Metric, Thresholds
from phi3_ops.runs.scored import ScoredRun
from phi3_ops.runs.store import RunOutputs

HOSTILE = [
    "</script><script>alert('script')</script>",
    "<img src=x onerror=alert('image')>",
    "<img src='https://example.invalid/pixel.png'>",
    "<svg onload=alert('svg')><style>*{display:none}</style>",
    "</textarea></details></table></main><h1>gone</h1>",
    "</style><style>body{display:none}</style>",
    "<iframe src='https://example.invalid/'></iframe><base href='https://example.invalid/'>",
    "<meta http-equiv=refresh content='0;url=https://example.invalid/'>",
    "[click](javascript:alert('link')) <a href=\"javascript:alert('link')\">click</a>",
    "{{ 7 * 7 }} {% for x in range(9) %}x{% endfor %} ${7*7} #{7*7}",
    "\" onmouseover=\"alert('attribute')",
    "&lt;script&gt; &amp;amp; ]]> <!-- ",
    "turned \u202eround\u202c and \u2066kept\u2069, \x00\x1b[31m\x7f, half a pair \ud800",
    "שלום عليكم 你好 é 👩‍👩‍👧",
    "x" * 100_000,
    "<b>" + "long " * 400 + "</b>",
]


def hostile_report(folder: Path) -> Comparison:
    """Return a comparison of two runs over hostile data, with failures, slices and a gate."""
    lines = [*HOSTILE, *(f"harmless {n}" for n in range(24))]
    rows = [
        {"question": f"{n} {text[:200]}", "kind": HOSTILE[n % 3]} for n, text in enumerate(lines)
    ]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for which, name in enumerate(("<script>alert('name')</script>", "tuned")):
        scores = {
            n: {"exact_match": float((n + which) % 3 == 0), "chrf": n * 2.0 + which, "length": n}
            for n in range(len(lines))
            if n != 20 + which
        }
        answers = {n: {"answer": lines[n]} for n in scores}
        facts = {"answer.connection": ("phi3", "phi3-base")[which], "flow": HOSTILE[1]}
        asked = RunOutputs(answers, errors={20 + which: "told to fail <b>loudly</b>"}, facts=facts)
        found.append(ScoredRun(name, data, RunOutputs(scores), asked))
    limits = Thresholds(
        metrics={
            "exact_match": Metric(range=(0, 1), margin=0.02),
            "chrf": Metric(range=(0, 100)),
            "length": Metric(higher_is_better=None),
        }
    )
    return compare_runs(found, limits, ComparisonSettings(gates={"all": None}, resamples=500))


# Clear the screen, write the clipboard (OSC 52), disguise a link (OSC 8), C1 controls, text direction,
# markup of rich, an emoji code, and half of a surrogate pair.
TERMINAL_ATTACK = (
    "\x1b[2J\x1b[H\x1b]52;c;cm0gLXJm\x07\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\\x9b31m\x08\x7f"
    "\u202e[red][link=https://evil.example]x[/link][/nothing]:smile:\ud800"
)


def assert_harmless(printed: str, *, complete: bool = True) -> None:
    """Check that printed text contains the attack, and nothing that a terminal obeys.

    Args:
        printed: what a command printed.
        complete: the attack is on one line and was not encoded as JSON.
    """
    active = {c for c in printed if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"}
    assert not active and "\u202e" not in printed, active
    assert "evil" in printed
    if complete:
        assert "‹U+001B›]52;c;cm0gLXJm‹U+0007›" in printed
        assert "‹U+202E›[red][link=https://evil.example]x[/link][/nothing]:smile:" in printed
