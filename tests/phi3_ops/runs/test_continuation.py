"""The run of a title goes on where it stopped: no answered line runs again."""

from __future__ import annotations

import secrets
import shutil
from functools import partial

import pytest

from phi3_ops import paths
from phi3_ops.pf.run_types import CANCELED
from phi3_ops.pf.stored_runs import find_stored_run, set_run_status
from phi3_ops.runs.continuation import continue_flow, furthest_run, lines_left, usage_of_run
from phi3_ops.runs.records import FLOW_RECORDS

QA = paths.FLOWS / "qa"


@pytest.fixture
def title():
    return f"t-{secrets.token_hex(4)}"


@pytest.fixture
def go_on(server, title):
    """A function that starts or continues a run over a data file."""
    columns = {"input_data": "${data.question}"}
    connections = {"answer": {"connection": "runs"}}
    return partial(
        continue_flow, QA, columns=columns, title=title, connections=connections, in_flight=2
    )


def test_a_complete_run_is_returned(server, go_on, title, write_questions):
    assert furthest_run(title) is None and lines_left(None, 3) == 3
    data = write_questions("a", "fail", "b")
    first = go_on(data)
    assert go_on(data) == first and len(server.requests) == 3
    run = furthest_run(title)
    assert lines_left(run, 3) == 0 and lines_left(run, 3, retry_failed=True) == 1
    usage = usage_of_run(run)
    assert set(usage) == {0, 2}
    assert (usage[0].prompt_tokens, usage[0].completion_tokens) == (11, 7) and usage[0].seconds > 0
    again = go_on(data, retry_failed=True)
    assert again.name != first.name and len(server.requests) == 4


def test_a_run_that_did_not_end_goes_on(server, go_on, title, write_questions):
    data = write_questions("a", "b", "c")
    run = find_stored_run(go_on(data).name)
    set_run_status(run.name, CANCELED)
    (run.folder / FLOW_RECORDS / "000000001_000000001.jsonl").unlink()
    (run.folder / "outputs.jsonl").unlink()
    shutil.rmtree(run.folder / "flow_outputs")
    assert lines_left(furthest_run(title), 3) == 1
    assert len(go_on(data).answers) == 3 and len(server.requests) == 4


def test_the_run_with_the_most_answers_counts(server, go_on, title, write_questions):
    data = write_questions("a", "fail", "b")
    first = find_stored_run(go_on(data).name)
    newer = find_stored_run(go_on(data, retry_failed=True).name)
    for record in (newer.folder / FLOW_RECORDS).glob("*"):  # killed while it copied the answers
        record.unlink()
    assert furthest_run(title).name == first.name


def test_a_run_whose_data_are_gone_does_not_count(server, go_on, title, write_questions):
    data = write_questions("a")
    go_on(data)
    data.unlink()
    assert furthest_run(title) is None
