"""A run is resumed: only its missing and failed lines run again, with the same data and flow."""

from __future__ import annotations

import shutil

import pytest

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.pf.run_types import RUNNING
from phi3_ops.pf.stored_runs import find_stored_run, set_run_status
from phi3_ops.runs.evaluation import score_batch
from phi3_ops.runs.properties import CONNECTIONS_PROPERTY, FLOW_VERSION_PROPERTY
from phi3_ops.runs.resume import resume_run

QA = paths.FLOWS / "qa"


def test_only_failed_lines_run_again(server, ask, write_questions):
    first = ask(QA, write_questions("a", "fail", "b"))
    server.requests.clear()
    progress = []
    again = resume_run(first.name, on_progress=lambda each: progress.append(each.done))
    assert again.name != first.name and again.failed == 1
    assert len(server.requests) == 1  # the line that failed
    assert progress == [1, 2, 3]
    old, new = (find_stored_run(run.name) for run in (first, again))
    assert new.title == old.title and new.column_mapping == old.column_mapping
    assert new.properties[CONNECTIONS_PROPERTY] == old.properties[CONNECTIONS_PROPERTY]


def test_a_complete_run_is_returned_and_nothing_runs(server, ask, write_questions):
    done = ask(QA, write_questions("a", "b"))
    server.requests.clear()
    assert resume_run(done.name) == done
    assert resume_run("t") == done  # its display name
    assert not server.requests


def test_a_scoring_of_which_the_base_has_failed_lines_is_complete(server, ask, write_questions):
    base = ask(QA, write_questions("right", "fail"))
    scored = score_batch(FlowDefinition.read(paths.FLOWS / "eval"), base)
    assert (scored.failed, scored.not_asked) == (1, 0)
    assert resume_run(scored.name) == scored


def test_a_flow_that_has_changed_is_refused(server, ask, write_questions, copy_of_qa, tmp_path):
    flow = copy_of_qa(tmp_path / "qa", "1.0.0")
    done = ask(flow, write_questions("right", "fail"))
    shutil.rmtree(flow)
    copy_of_qa(flow, "1.0.1")
    with pytest.raises(OpsError, match=f"qa has changed since {done.name} ran it"):
        resume_run(done.name)
    shutil.rmtree(flow)
    copy_of_qa(flow, "1.0.0")
    again = find_stored_run(resume_run(done.name).name)
    assert again.properties[FLOW_VERSION_PROPERTY] == "1.0.0"


def test_a_data_file_that_has_changed_or_is_missing_is_refused(server, ask, write_questions):
    data = write_questions("right")
    done = ask(QA, data)
    write_questions("right", "more")
    with pytest.raises(OpsError, match=f"{data} has changed since {done.name} read it"):
        resume_run(done.name)
    data.unlink()
    with pytest.raises(OpsError, match="does not exist any more"):
        resume_run(done.name)


def test_a_run_that_is_still_running_is_refused(server, ask, write_questions):
    done = ask(QA, write_questions("right"))  # by this process, which still runs
    set_run_status(done.name, RUNNING)
    with pytest.raises(OpsError, match=f"{done.name} is still running"):
        resume_run(done.name)


def test_a_run_that_did_not_end_is_completed_first(server, ask, write_questions):
    done = ask(QA, write_questions("a", "b", "c"))
    folder = find_stored_run(done.name).folder
    set_run_status(done.name, "Failed")
    shutil.rmtree(folder / "flow_outputs")
    (record,) = folder.glob("flow_artifacts/000000001*.jsonl")
    record.write_text('{"half a rec')
    server.requests.clear()
    again = resume_run(done.name)
    assert again.failed == 0 and len(again.answers) == 3
    assert len(server.requests) == 1


def test_a_run_that_does_not_exist_is_named():
    with pytest.raises(OpsError, match="the run 'nowhere' does not exist"):
        resume_run("nowhere")
