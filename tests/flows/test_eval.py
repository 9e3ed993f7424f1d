"""flows/eval on prompt flow's own engine: scores, metrics and failures."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import yaml

from phi3_ops import paths
from phi3_ops.comparison.thresholds import load_thresholds
from phi3_ops.pf.client import pf_client
from phi3_tools import ConfigError
from phi3_tools.evaluation.metrics import corpus_scores, line_scores, mean_of

EVAL = paths.FLOWS / "eval"
ROWS = [
    ("Bill Gates and Paul Allen.", "Bill Gates and Paul Allen."),
    ("Paul Allen, I think.", "Bill Gates and Paul Allen."),
    ("你好世界", "你好"),
    ("", "Something."),
    ("Straße", "STRASSE"),
    ("NaN", "nan"),
]


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run of the flow in prompt flow's store."""
    data = tmp_path_factory.mktemp("eval") / "data.jsonl"
    data.write_text("".join(json.dumps({"answer": a, "ground_truth": t}) + "\n" for a, t in ROWS))
    columns = {name: f"${{data.{name}}}" for name in ("answer", "ground_truth")}
    run = pf_client().run(flow=EVAL, data=data, column_mapping=columns, batch_use_async=True)
    assert run.status == "Completed"
    return Path(run._output_path)


def test_lines_have_every_score(folder):
    rows = [strict(line) for line in (folder / "outputs.jsonl").read_text().splitlines()]
    assert len(rows) == len(ROWS)
    for row in rows:
        expected = line_scores(*ROWS[row.pop("line_number")])
        assert row == pytest.approx(expected)


def test_metrics_have_means_errors_and_counts(folder):
    logged = strict((folder / "metrics.json").read_text())
    lines = [line_scores(*row) for row in ROWS]
    assert (logged.pop("lines"), logged.pop("failures")) == (len(ROWS), 0)
    for name in lines[0]:
        mean = mean_of(line[name] for line in lines)
        assert logged.pop(name) == pytest.approx(mean.mean)
        assert logged.pop(f"{name}_stderr") == pytest.approx(mean.stderr)
    assert logged == pytest.approx(corpus_scores(*map(list, zip(*ROWS))))


@pytest.fixture
def logged(monkeypatch):
    """Return a function that runs the aggregation node alone and returns the metrics that it logs."""
    metrics = {}
    monkeypatch.syspath_prepend(EVAL)
    monkeypatch.delitem(sys.modules, "aggregate", raising=False)
    import aggregate

    monkeypatch.setattr(aggregate, "log_metric", metrics.__setitem__)
    yield lambda lines: (aggregate.aggregate(lines), dict(metrics))[1]
    sys.modules.pop("aggregate", None)


def line(answer, truth):
    return {**line_scores(answer, truth), "answer": answer, "ground_truth": truth}


def test_a_line_without_scores_counts_as_0(logged):
    metrics = logged([line("yes", "yes"), None, line("yes", "yes"), None])
    assert (metrics["lines"], metrics["failures"]) == (4, 2)
    assert metrics["exact_match"] == 0.5
    assert metrics["exact_match_stderr"] == pytest.approx(math.sqrt(1 / 3 / 4))
    assert metrics["length"] == 1  # mean over the existing answers


@pytest.mark.parametrize("lines", [[], [None], [line("a", "b")]])
def test_every_metric_exists_for_few_lines(logged, lines):
    metrics = logged(lines)
    assert metrics["lines"] == len(lines)
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_missing_package_fails_the_line_with_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ConfigError, match="the package sacrebleu is not installed"):
        line_scores("a", "b")


def test_the_flow_lists_its_packages_and_thresholds():
    flow = yaml.safe_load((EVAL / "flow.dag.yaml").read_text())
    scores = set(line_scores("a", "b"))
    assert set(flow["outputs"]) == scores
    assert set(load_thresholds(EVAL / "thresholds.yaml").metrics) == scores
    requirements = (EVAL / flow["environment"]["python_requirements_txt"]).read_text()
    assert {"rouge-score", "sacrebleu"} <= {row.split(">")[0] for row in requirements.splitlines()}
