"""Answers are scored with an evaluation flow, and a line without a score counts 0."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.files.json_files import read_jsonl
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.pf.client import pf_client
from phi3_ops.runs.batch import Batch
from phi3_ops.runs.evaluation import (
    ask_and_score,
    check_evaluation,
    check_evaluation_of_run,
    mean_by_kind,
    mean_scores,
    score_batch,
)


def test_a_failed_line_is_a_line_and_counts_0(server, write_questions):
    data = write_questions("right", "fail", "wrong", "right")
    asked, scored = ask_and_score(data, title="t", connection="runs")
    assert (asked.lines, asked.failed) == (4, 1)
    assert "told to fail" in asked.reason
    assert [scored.answers.get(n, {}).get("exact_match") for n in range(4)] == [1, None, 0, 1]
    means = mean_by_kind(read_jsonl(data), scored)
    assert (means["even"].n, means["even"].mean) == (2, 0.5)
    assert (means["odd"].n, means["odd"].mean) == (2, 0.5)
    assert (mean_scores(scored)["exact_match"].n, mean_scores(scored)["exact_match"].mean) == (
        4,
        0.5,
    )


def test_metrics_are_in_prompt_flows_own_store(server, write_questions):
    _, scored = ask_and_score(write_questions("right", "wrong"), title="t", connection="runs")
    metrics = pf_client().get_metrics(scored.name)
    assert metrics["exact_match"] == 0.5
    assert metrics["lines"] == 2 and metrics["failures"] == 0


def test_if_no_line_is_answered_the_reason_is_in_the_error(server, write_questions):
    with pytest.raises(OpsError, match="all 1 lines of t-.* failed: .*told to fail"):
        ask_and_score(write_questions("fail"), title="t", connection="runs")


def test_a_batch_is_scored_over_its_own_data_file(server, ask, write_questions):
    base = ask(paths.FLOWS / "qa", write_questions("right", "wrong"))
    progress = []
    scored = score_batch(
        FlowDefinition.read(paths.FLOWS / "eval"),
        base,
        on_progress=lambda each: progress.append(each.done),
    )
    assert scored.name.startswith(f"{base.name}-eval-")
    assert {line: row["exact_match"] for line, row in scored.answers.items()} == {0: 1, 1: 0}
    assert progress == [1, 2]


def test_an_evaluation_without_its_columns_is_refused_before_the_first_question(write_questions):
    evaluation, qa = (FlowDefinition.read(paths.FLOWS / name) for name in ("eval", "qa"))
    data = write_questions("right")
    check_evaluation(evaluation, qa, data)
    data.write_text('{"question": "right"}\n')
    expected = (
        "eval, the flow of --evaluate, needs a column 'ground_truth'. .*has the columns question, "
        "and .*qa has the outputs answer"
    )
    with pytest.raises(OpsError, match=expected):
        check_evaluation(evaluation, qa, data)


def test_an_evaluation_without_its_connection_is_refused(write_questions):
    judge, qa = (FlowDefinition.read(paths.FLOWS / name) for name in ("judge", "qa"))
    with pytest.raises(OpsError, match="the connection '.*' does not exist"):
        check_evaluation(
            judge, replace(qa, outputs=("answer", "context")), write_questions("right")
        )


def test_the_evaluation_of_a_stored_run_is_checked(server, ask, write_questions):
    done = ask(paths.FLOWS / "qa", write_questions("right"))
    check_evaluation_of_run(FlowDefinition.read(paths.FLOWS / "eval"), done.name)


def test_the_mean_is_over_all_lines_and_only_of_numbers():
    scored = Batch("scored", {0: {"s": 1, "text": "x"}, 2: {"s": 0.5, "text": "y"}}, lines=4)
    means = mean_scores(scored)
    assert list(means) == ["s"]
    assert (means["s"].n, means["s"].mean) == (4, 0.375)
