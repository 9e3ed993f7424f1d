"""Batches on promptflow's own engine: every line counted, whatever became of it."""

from __future__ import annotations

import json

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_ops import batch, connect, paths
from phi3_ops.errors import OpsError


@pytest.fixture
def server():
    with echo_endpoint() as server:
        connect.save("b", {"endpoint": server.url, "contract": "chat"}, KEY)
        yield server
        connect.delete("b")


def write(path, questions):
    rows = [{"question": q, "ground_truth": "right", "kind": "odd" if n % 2 else "even"}
            for n, q in enumerate(questions)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_a_failed_line_is_a_line_and_counts_nothing_right(server, tmp_path):
    rows = write(tmp_path / "q.jsonl", ["right", "fail", "wrong", "right"])
    asked, scored = batch.evaluate(tmp_path / "q.jsonl", title="t", connection="b")
    assert (asked.lines, asked.failed) == (4, 1)
    assert "told to fail" in asked.reason
    assert [scored.answers.get(n, {}).get("exact_match") for n in range(4)] == [1, None, 0, 1]
    means = batch.by_kind(rows, scored)
    assert (means["even"].n, means["even"].mean) == (2, 0.5)
    assert (means["odd"].n, means["odd"].mean) == (2, 0.5)


def test_metrics_are_in_prompt_flows_own_store(server, tmp_path):
    write(tmp_path / "q.jsonl", ["right", "wrong"])
    _, scored = batch.evaluate(tmp_path / "q.jsonl", title="t", connection="b")
    from phi3_ops import pf

    metrics = pf.client().get_metrics(scored.name)
    assert metrics["exact_match"] == 0.5
    assert metrics["lines"] == 2 and metrics["failures"] == 0


def test_when_no_line_is_answered_the_reason_is_told(server, tmp_path):
    write(tmp_path / "q.jsonl", ["fail"])
    with pytest.raises(OpsError, match="all 1 lines of t-.* failed: .*told to fail"):
        batch.evaluate(tmp_path / "q.jsonl", title="t", connection="b")


def test_a_connection_that_is_not_there_is_named(tmp_path):
    write(tmp_path / "q.jsonl", ["x"])
    with pytest.raises(OpsError, match="nowhere"):
        batch.evaluate(tmp_path / "q.jsonl", title="t", connection="nowhere")


def test_lines_are_asked_at_once(server, tmp_path):
    write(tmp_path / "q.jsonl", [f"q{n}" for n in range(40)])
    columns = {"input_data": "${data.question}"}
    done = batch.run_flow(
        paths.FLOWS / "qa", tmp_path / "q.jsonl", columns, title="t",
        connections={"answer": {"connection": "b"}},
    )  # fmt: skip
    assert [done.answers[n]["answer"] for n in range(40)] == [f"q{n}" for n in range(40)]
    assert len(server.requests) == 40
