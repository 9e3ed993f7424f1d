"""The thresholds file: wrong entries are named, and missing entries have defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from phi3_ops.comparison.thresholds import Metric, load_thresholds
from phi3_ops.errors import OpsError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: {a: {margin: -1}}", "`metrics.a.margin`"),
        ("metrics: {a: {margin: .nan}}", "`metrics.a.margin`"),
        ("metrics: {a: {higher: true}}", "`metrics.a.higher`"),
        ("metrics: {a: {higher_is_better: false}}", "the score of a failed line is unknown"),
        ("metrics: {a: {higher_is_better: null, margin: 1}}", "cannot have a margin"),
        ("metrics: {a: {range: [1, 1]}}", r"range must be \[lowest, highest\]"),
        ("max_unparsed: 2", "`max_unparsed`"),
        ("max_failed: -1", "`max_failed`"),
        ("[1", "must be a YAML file"),
        ("- a", "t.yaml is not a mapping"),
    ],
)
def test_wrong_thresholds_are_named(tmp_path, text, message):
    file = tmp_path / "t.yaml"
    file.write_text(text)
    with pytest.raises(OpsError, match=message) as caught:
        load_thresholds(file)
    assert str(file) in str(caught.value)


def test_no_thresholds():
    assert load_thresholds(None).metric("any").worst == 0
    with pytest.raises(OpsError, match="does not exist"):
        load_thresholds(Path("nowhere.yaml"))


@pytest.mark.parametrize(
    ("metric", "worst"),
    [
        (Metric(), 0),
        (Metric(range=(1, 5)), 1),
        (Metric(range=(1, 5), higher_is_better=False), 5),
        (Metric(range=(1, 5), failed=3), 3),
        (Metric(higher_is_better=None), None),
        (Metric(higher_is_better=None, failed=0), 0),
    ],
)
def test_the_score_of_a_failed_line(metric, worst):
    assert metric.worst == worst


def test_the_thresholds_of_the_documentation_are_thresholds(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "t.yaml").write_text(text)
    thresholds = load_thresholds(tmp_path / "t.yaml")
    assert thresholds.metric("seconds").worst == 60
    assert thresholds.metric("length").higher_is_better is None
