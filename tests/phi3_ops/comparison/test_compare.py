"""Runs joined by line, every line counted, and a gate that says what it knows."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from phi3_ops.cli import main
from phi3_ops.comparison.compare import (
    INCONCLUSIVE,
    PASS,
    REGRESSION,
    ComparisonSettings,
    compare_runs,
    decide_gate,
)
from phi3_ops.comparison.paired_stats import bootstrap_interval
from phi3_ops.comparison.report import render_report
from phi3_ops.comparison.thresholds import Metric, Thresholds, load_thresholds
from phi3_ops.errors import OpsError
from phi3_ops.runs.scored import RunOutputs, ScoredRun

QUICK = ComparisonSettings(resamples=500)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def table(tmp_path):
    """Runs over one data file, from their scores: None stands for a line that is missing."""

    def make(*columns, name="score", data=None):
        lines = max(map(len, columns))
        rows = data or [
            {"question": f"q{n}", "kind": "odd" if n % 2 else "even"} for n in range(lines)
        ]
        file = write(tmp_path / "data.jsonl", rows)
        return [
            ScoredRun(
                f"run{n}",
                file,
                RunOutputs({i: {name: v} for i, v in enumerate(column) if v is not None}),
            )
            for n, column in enumerate(columns)
        ]

    return make


def entry_of(found, limits=Thresholds(), settings=QUICK):
    (entry,) = compare_runs(found, limits, settings).summary["comparisons"]
    return entry


# -- joining ---------------------------------------------------------------------------------------


def test_a_missing_line_is_a_failure_and_scores_nothing(table):
    base, other = [1, 1, 0, 0], [1, None, 1, 0]
    entry = entry_of(table(base, other))
    assert (entry["n"], entry["baseline_mean"], entry["mean"]) == (4, 0.5, 0.5)
    assert (entry["wins"], entry["losses"], entry["ties"]) == (1, 1, 2)
    report = compare_runs(table(base, other), settings=QUICK)
    assert [run["failed"] for run in report.summary["runs"]] == [0, 1]


def test_a_line_missing_in_both_is_a_tie(table):
    entry = entry_of(table([1, None], [1, None]))
    assert (entry["n"], entry["ties"], entry["difference"]) == (2, 2, 0)


def test_a_run_of_which_every_line_failed_is_compared(table):
    entry = entry_of(table([1, 1, 1], [None, None, None]))
    assert (entry["losses"], entry["difference"]) == (3, -1)


def test_a_failed_line_scores_what_the_thresholds_say(table):
    limits = Thresholds(metrics={"score": Metric(range=(1, 5))})
    assert entry_of(table([3, 3], [3, None]), limits)["mean"] == 2
    seconds = Thresholds(metrics={"score": Metric(higher_is_better=False, failed=60)})
    entry = entry_of(table([3, 3], [2, None]), seconds)
    assert (entry["mean"], entry["wins"], entry["losses"]) == (31, 1, 1)


@pytest.mark.parametrize("nothing", [math.nan, math.inf, "unparsed", [], None])
def test_a_line_without_a_verdict_is_left_out_and_told(table, nothing):
    base, other = table([1, 1, 0], [1, 1, 1])
    other.scored.rows[1]["score"] = nothing
    entry = entry_of([base, other])
    assert (entry["n"], entry["unscored"], entry["mean"]) == (2, 1, 1)


def test_a_judge_that_never_gave_a_verdict_decides_nothing(table):
    base, other = table([1, 1, 0], [1, 1, 1])
    for row in other.scored.rows.values():
        row["score"] = None
    report = compare_runs([base, other], settings=ComparisonSettings(gates={"score": 1.0}))
    assert report.exit_code == 2
    assert report.summary["comparisons"][0]["mean"] is None
    assert render_report(report)


def test_an_answer_whose_scoring_failed_is_no_failure_of_the_model(table):
    base, other = table([1, 1, 0], [1, None, 1])
    asked = RunOutputs({line: {"answer": "x"} for line in range(3)})
    entry = entry_of([base, ScoredRun("b", other.data, other.scored, asked)])
    assert (entry["n"], entry["unscored"]) == (2, 1)


def test_true_and_false_are_scores(table):
    assert entry_of(table([True, False], [True, True]))["difference"] == 0.5


def test_lower_can_be_better(table):
    limits = Thresholds(metrics={"score": Metric(higher_is_better=False, range=(0, 9))})
    entry = entry_of(table([5, 5, 5], [1, 1, 6]), limits)
    assert (entry["wins"], entry["losses"]) == (2, 1)
    assert entry["difference"] == pytest.approx(-7 / 3)


def test_a_length_is_neither_won_nor_lost(table):
    limits = Thresholds(metrics={"score": Metric(higher_is_better=None)})
    entry = entry_of(table([5, 5, 2], [1, 9, None]), limits)
    assert "wins" not in entry and entry["n"] == 2


def test_numbers_are_those_of_the_statistics(table):
    rng = np.random.default_rng(1)
    base, other = rng.random(50), rng.random(50)
    entry = entry_of(table(list(base), list(other)))
    assert (entry["low"], entry["high"]) == bootstrap_interval(other - base, resamples=500, seed=1)
    assert entry["difference"] == pytest.approx((other - base).mean())


def test_every_run_is_set_against_the_first(table):
    found = table([0, 0, 0], [1, 0, 0], [1, 1, 1])
    entries = compare_runs(found, settings=QUICK).summary["comparisons"]
    assert [(e["run"], e["wins"]) for e in entries] == [("B", 1), ("C", 3)]


def test_only_scores_that_all_have_are_compared(table):
    base, other = table([1, 0], [1, 1])
    base.scored.rows[0]["only_here"] = 1
    assert entry_of([base, other])["metric"] == "score"


# -- slices ----------------------------------------------------------------------------------------


def test_slices_by_value_and_by_tag(table):
    data = [
        {"kind": "x", "tags": ["short", "easy"]},
        {"kind": "y", "tags": ["short"]},
        {"kind": "x", "tags": []},
    ]
    slices = entry_of(table([0, 0, 0], [1, 0, 1], data=data))["slices"]
    found = {f"{s['by']}={s['value']}": (s["n"], s["wins"]) for s in slices}
    assert found == {"kind=x": (2, 2), "kind=y": (1, 0), "tags=easy": (1, 1), "tags=short": (2, 1)}
    assert slices[1]["low"] is None  # of one line


def test_slices_by_another_column(table):
    settings = ComparisonSettings(by=["question"], resamples=100)
    assert len(entry_of(table([0, 0], [1, 0]), settings=settings)["slices"]) == 2
    with pytest.raises(OpsError, match="no column 'nowhere'. It has: question, kind"):
        entry_of(table([0, 0], [1, 0]), settings=ComparisonSettings(by=["nowhere"]))
    with pytest.raises(OpsError, match="'question' has 60 different values"):
        entry_of(table([0] * 60, [1] * 60), settings=settings)


# -- what cannot be compared -----------------------------------------------------------------------


def test_other_data_are_refused(table, tmp_path):
    base, other = table([1, 0], [1, 1])
    elsewhere = write(tmp_path / "elsewhere.jsonl", [{"question": "x"}, {"question": "y"}])
    with pytest.raises(
        OpsError, match="run0 ran over .*data.jsonl, and run1 over .*elsewhere.jsonl"
    ):
        compare_runs([base, ScoredRun("run1", elsewhere, other.scored)])
    elsewhere.write_bytes(base.data.read_bytes())
    assert entry_of([base, ScoredRun("run1", elsewhere, other.scored)])["n"] == 2


def test_runs_without_scores_are_told_how_to_get_them(table):
    base, other = table([1, 0], [1, 0])
    other = ScoredRun(other.name, other.data, RunOutputs({0: {"answer": "text only"}}))
    with pytest.raises(OpsError, match="run1 has no scores. Score it first: pf run create --flow"):
        compare_runs([base, other])


def test_an_unknown_score_is_named(table):
    with pytest.raises(OpsError, match="no score 'speed' in common. They have: score"):
        compare_runs(table([1], [1]), settings=ComparisonSettings(metrics=["speed"]))
    with pytest.raises(OpsError, match="no score 'speed' in common"):
        compare_runs(table([1], [1]), settings=ComparisonSettings(gates={"speed": 0.1}))


def test_what_differs_is_told(table):
    base, other = table([1, 0], [1, 1])
    facts = [{"flow": "qa 1.0", "answer.connection": name} for name in ("phi3", "phi3-base")]
    found = [
        ScoredRun(r.name, r.data, RunOutputs(r.scored.rows, facts=f))
        for r, f in zip((base, other), facts)
    ]
    summary = compare_runs(found, settings=QUICK).summary
    assert summary["differences"] == [
        {"fact": "answer.connection", "values": ["phi3", "phi3-base"]}
    ]


# -- the gate --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("improvement", "margin", "unscored", "verdict"),
    [
        ((-0.02, 0.1), 0.02, 0, PASS),
        ((0.01, 0.1), 0, 0, PASS),
        ((0.0, 0.0), 0, 0, PASS),
        ((-0.03, 0.1), 0.02, 0, INCONCLUSIVE),
        ((-0.3, -0.02), 0.02, 0, INCONCLUSIVE),
        ((-0.3, -0.021), 0.02, 0, REGRESSION),
        ((0.1, 0.2), 0.02, 0.05, PASS),
        ((0.1, 0.2), 0.02, 0.051, INCONCLUSIVE),
        ((-0.9, -0.8), 0.02, 0.051, INCONCLUSIVE),
        ((None, None), 0.02, 0, INCONCLUSIVE),
    ],
)
def test_verdicts(improvement, margin, unscored, verdict):
    found, reason = decide_gate(improvement, margin, unscored=unscored, max_unscored=0.05)
    assert found == verdict and reason


def gate(found, limits=Thresholds(), **gates):
    return compare_runs(found, limits, ComparisonSettings(gates=gates, resamples=500))


def test_the_worst_verdict_wins(table):
    same, worse = [1] * 40, [0] * 40
    unsure = [0, 1] * 20
    assert gate(table(same, same), score=0.0).exit_code == 0
    assert gate(table(same, worse), score=0.5).exit_code == 1
    assert gate(table(unsure, unsure[::-1]), score=0.0).exit_code == 2
    assert (
        gate(table(same, same, unsure, worse), score=0.5).summary["gate"]["verdict"] == REGRESSION
    )
    assert compare_runs(table(same, worse), settings=QUICK).exit_code == 0  # nothing was asked


def test_margins_of_the_thresholds(table):
    limits = Thresholds(metrics={"score": Metric(margin=0.3)})
    base, other = table([1] * 60, [1] * 50 + [0] * 10)
    entry = compare_runs([base, other], limits, ComparisonSettings(gates={"all": None})).summary[
        "comparisons"
    ][0]
    assert entry["gate"] == {**entry["gate"], "margin": 0.3, "verdict": PASS}
    assert gate([base, other], limits, score=None).exit_code == 0
    assert gate([base, other], limits, score=0.01).exit_code == 1
    with pytest.raises(OpsError, match="no score has a margin"):
        gate([base, other], all=None)
    with pytest.raises(
        OpsError, match="score has no margin in the thresholds. Give --gate score:MARGIN"
    ):
        gate([base, other], score=None)


def test_lower_is_better_at_the_gate_too(table):
    limits = Thresholds(metrics={"score": Metric(higher_is_better=False, range=(0, 9))})
    found = table([5] * 30, [1] * 30)
    assert gate(found, limits, score=0.1).exit_code == 0
    assert gate(found[::-1], limits, score=0.1).exit_code == 1


def test_nobody_gates_on_a_length(table):
    limits = Thresholds(metrics={"score": Metric(higher_is_better=None)})
    with pytest.raises(OpsError, match="neither better nor worse"):
        gate(table([5, 5], [1, 1]), limits, score=0.1)


# -- thresholds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("metrics: {a: {margin: -1}}", "`metrics.a.margin`"),
        ("metrics: {a: {margin: .nan}}", "`metrics.a.margin`"),
        ("metrics: {a: {higher: true}}", "`metrics.a.higher`"),
        ("metrics: {a: {higher_is_better: false}}", "say what a failed line scores"),
        ("metrics: {a: {higher_is_better: null, margin: 1}}", "cannot have a margin"),
        ("metrics: {a: {range: [1, 1]}}", r"range must be \[lowest, highest\]"),
        ("max_unparsed: 2", "`max_unparsed`"),
        ("[1", "must be a YAML file"),
        ("- a", "`the file`"),
    ],
)
def test_wrong_thresholds_are_named(tmp_path, text, told):
    file = tmp_path / "t.yaml"
    file.write_text(text)
    with pytest.raises(OpsError, match=told) as caught:
        load_thresholds(file)
    assert str(file) in str(caught.value)


def test_no_thresholds():
    assert load_thresholds(None).metric("any").worst == 0
    with pytest.raises(OpsError, match="there is no file"):
        load_thresholds(Path("nowhere.yaml"))


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"q{n}", "kind": "odd" if n % 2 else "even"} for n in range(60)]
    write(tmp_path / "data.jsonl", rows)
    for name, right in (("good", 50), ("bad", 10)):
        scores = [
            {"line_number": n, "answer": f"{name} {n}", "exact_match": float(n < right)}
            for n in range(60)
        ]
        write(tmp_path / f"{name}.jsonl", scores[:-1])
    return tmp_path


def phi3_compare(*words):
    return main(["compare", *words, "--data", "data.jsonl", "--resamples", "500"])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("good.jsonl", "good.jsonl", "--gate", "exact_match"), 0),
        (("good.jsonl", "bad.jsonl", "--gate", "exact_match:0.1"), 1),
        (("good.jsonl", "bad.jsonl", "--gate", "all"), 1),
        (("bad.jsonl", "good.jsonl", "--gate", "exact_match:0.1"), 0),
        (("good.jsonl", "bad.jsonl"), 0),
        (("good.jsonl", "bad.jsonl", "--gate", "exact_match:0.7"), 2),
    ],
)
def test_exit_codes(files, capsys, words, code):
    assert phi3_compare(*words) == code
    printed = capsys.readouterr().out
    assert "59 answered, 1 failed" in printed
    assert "kind: odd" in printed
    assert ("gate:" in printed) == ("--gate" in words)


def test_what_is_written(files, capsys):
    phi3_compare("good.jsonl", "bad.jsonl", "--out", "here")
    assert sorted(path.name for path in (files / "here").iterdir()) == [
        "compare.html",
        "compare.json",
    ]
    summary = json.loads((files / "here" / "compare.json").read_text())
    assert summary["schema"] == 1
    assert summary["data"]["lines"] == 60
    assert summary["comparisons"][0]["losses"] == 40
    assert "bad 3" in (files / "here" / "compare.html").read_text()


def test_nothing_compared_is_not_a_regression(files, capsys):
    """For CI, 1 means that the model got worse: an error of any other kind must not say so."""
    assert phi3_compare("good.jsonl", "none.jsonl") == 1
    assert phi3_compare("good.jsonl", "none.jsonl", "--gate", "exact_match") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 2 and all("there is no file none.jsonl" in line for line in errors)
    assert not (files / ".phi3").exists()


def test_a_missing_package_is_named():
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from phi3_ops.cli import main; sys.exit(main(['compare', 'a.jsonl', 'b.jsonl']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "numpy is not installed. pip install 'phi3-promptflow[eval]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("gate", ["x:-1", "x:nan", "x:much", ":1"])
def test_a_gate_that_is_none_is_wrong_usage(files, capsys, gate):
    with pytest.raises(SystemExit) as end:
        phi3_compare("good.jsonl", "bad.jsonl", "--gate", gate)
    assert end.value.code == 2
    assert "--gate" in capsys.readouterr().err


def test_thresholds_of_ones_own(files, capsys):
    (files / "t.yaml").write_text(yaml.safe_dump({"metrics": {"exact_match": {"margin": 0.9}}}))
    words = ("good.jsonl", "bad.jsonl", "--gate", "all", "--thresholds", "t.yaml")
    assert phi3_compare(*words) == 0


def test_hostile_names_stay_text(files, capsys):
    rows = [{"kind": "[red]\x1b[31m\ud800", "question": "q"}] * 3
    write(files / "data.jsonl", rows)
    write(files / "a.jsonl", [{"s[bold]": 1}] * 3)
    assert phi3_compare("a.jsonl", "a.jsonl") == 0
    printed = capsys.readouterr().out
    assert "[red]‹U+001B›[31m‹U+D800›" in printed and "s[bold]" in printed
    assert "\x1b" not in printed


def test_the_thresholds_of_the_documentation_are_thresholds(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "t.yaml").write_text(text)
    found = load_thresholds(tmp_path / "t.yaml")
    assert found.metric("seconds").worst == 60
    assert found.metric("length").higher_is_better is None
