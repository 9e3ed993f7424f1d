"""Batches on Prompt flow's own engine: every line is counted, also the failed ones."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading

import pytest

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.names import is_name
from phi3_ops.pf import expectations
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.pf.pace import ConcurrencyLimit
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.runs import batch
from phi3_ops.runs.batch import (
    Batch,
    BatchProgress,
    _interruptible,
    choose_columns,
    load_batch,
    new_run_name,
    require_data_file,
)
from phi3_ops.runs.lookup import require_run
from slow_endpoint import slow_endpoint

QA = paths.FLOWS / "qa"


@pytest.fixture
def endpoint(request):
    with slow_endpoint(*getattr(request, "param", (0.02,))) as server:
        save_connection("runs", {"endpoint": server.url, "contract": "chat"}, "key")
        yield server
        delete_connection("runs")


def test_lines_are_answered_in_their_places(server, ask, write_questions):
    done = ask(QA, write_questions(*(f"q{n}" for n in range(40))))
    assert [done.answers[n]["answer"] for n in range(40)] == [f"q{n}" for n in range(40)]
    assert len(server.requests) == 40
    assert (done.lines, done.failed, done.reason, done.not_asked) == (40, 0, None, 0)


def test_a_connection_that_does_not_exist_is_named(ask, write_questions):
    with pytest.raises(OpsError, match="nowhere"):
        ask(QA, write_questions("x"), "nowhere")


@pytest.mark.parametrize("name", [path.parent.name for path in paths.FLOWS.glob("*/.gitignore")])
def test_logs_of_another_run_stay_out_of_the_copy(
    server, ask, write_questions, copy_of_qa, tmp_path, name
):
    """Prompt flow copies what .gitignore does not name, and fails if such a log vanishes meanwhile."""
    flow = copy_of_qa(tmp_path / "qa", "1.0.0")
    shutil.copy(paths.FLOWS / name / ".gitignore", flow)
    (flow / "process_log").mkdir()
    (flow / "process_log" / "manager.log").write_text("x")
    done = ask(flow, write_questions("right"))
    assert not (find_stored_run(done.name).folder / "snapshot" / "process_log").exists()


@pytest.mark.parametrize("endpoint", [(0.05, 4)], indirect=True)  # at most four calls at once
def test_no_line_is_lost_to_429(endpoint, ask, write_questions):
    done = ask(QA, write_questions(*(f"q{n}" for n in range(40))), in_flight=32)
    assert done.failed == 0 and done.lines == 40
    assert endpoint.refused and endpoint.highest == 4
    assert set(endpoint.asked.values()) == {1}


def test_an_untested_prompt_flow_runs_on_its_own_engine(
    endpoint, ask, write_questions, monkeypatch
):
    monkeypatch.setattr(expectations, "version", lambda package: "1.19.0")
    done = ask(QA, write_questions(*(f"q{n}" for n in range(40))))
    assert done.failed == 0 and len(done.answers) == 40


def test_progress_is_reported_for_each_line(endpoint, ask, write_questions):
    reports = []

    def on_progress(progress):
        reports.append((progress.lines, progress.done, progress.failed, progress.in_flight))
        assert isinstance(progress, BatchProgress) and progress.tokens % 18 == 0

    ask(QA, write_questions("a", "fail", "b"), on_progress=on_progress, in_flight=2)
    assert [report[:2] for report in reports] == [(3, 1), (3, 2), (3, 3)]
    assert reports[-1][2] == 1 and max(report[3] for report in reports) <= 2


def test_the_tokens_of_all_answers_are_counted(endpoint, ask, write_questions):
    latest = []
    ask(QA, write_questions("a", "b", "c"), on_progress=lambda p: latest.append(p.tokens))
    assert latest[-1] == 3 * 18


def test_a_stored_run_is_loaded(server, ask, write_questions):
    done = ask(QA, write_questions("right", "fail"))
    assert load_batch(done.name) == done
    assert "told to fail" in done.reason


def test_a_line_without_a_result_has_failed_unless_the_run_was_stopped(
    server, ask, write_questions, monkeypatch
):
    monkeypatch.setattr(batch, "read_errors", lambda folder: {})
    done = ask(QA, write_questions("right", "fail"))
    assert (done.failed, done.not_asked) == (1, 0)
    stored = load_batch(done.name)  # nobody knows any more that the run was not stopped
    assert (stored.failed, stored.not_asked) == (0, 1)


def test_a_run_that_does_not_exist_is_named():
    for load in (load_batch, require_run):
        with pytest.raises(OpsError, match="the run 'nowhere' does not exist.*phi3 runs"):
            load("nowhere")


def test_a_data_file_that_does_not_exist_any_more_is_named(server, ask, write_questions):
    data = write_questions("right")
    done = ask(QA, data)
    assert require_data_file(require_run(done.name)) == data
    data.unlink()
    with pytest.raises(OpsError, match=f"data file of the run {done.name} does not exist any more"):
        load_batch(done.name)


def test_the_sources_of_inputs_are_columns_or_outputs(write_questions):
    data, flow = write_questions("right"), FlowDefinition.read(paths.FLOWS / "eval")
    base = Batch("base", {0: {"answer": "right"}}, 1)
    assert choose_columns(flow, data, {}, base) == {
        "answer": "${run.outputs.answer}",
        "ground_truth": "${data.ground_truth}",
    }
    mapping = {"answer": "${data.question}"}
    assert choose_columns(flow, data, mapping, base)["answer"] == "${data.question}"
    with pytest.raises(OpsError, match="the input 'answer'"):
        choose_columns(flow, data, {})


def test_names_of_runs_differ():
    names = {new_run_name("title") for _ in range(20)}
    assert len(names) == 20 and all(name.startswith("title-") for name in names)


# -- Ctrl-C ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_ctrl_c_stops_the_limit(number):
    limit, handler = ConcurrencyLimit(2), signal.getsignal(number)
    with _interruptible(limit, "a-run"):
        assert not limit.stopped
        signal.getsignal(number)(number, None)  # a real signal is sent below, to another process
        assert limit.stopped
    assert signal.getsignal(number) is handler


def test_signals_are_left_alone_outside_the_main_thread():
    handlers, before = [], signal.getsignal(signal.SIGINT)

    def run():
        with _interruptible(ConcurrencyLimit(2), "a-run"):
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_the_second_ctrl_c_ends_the_process():
    code = """\
import os, signal
from phi3_ops.pf.pace import ConcurrencyLimit
from phi3_ops.runs import batch

batch.set_run_status = lambda *change: print(*change, flush=True)
with batch._interruptible(ConcurrencyLimit(2), "a-run"):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    print("went on")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "a-run Canceled\n"), done.stderr
    assert done.stderr.count("Press Ctrl-C again to end it now.") == 1


@pytest.mark.parametrize(
    "title", ["../../../w/x", "/etc/x", "my flow ü", "..", "-x", "x" * 300, ""]
)
def test_the_name_of_a_run_is_valid_whatever_its_title_is(title):
    """A title can be the name of a folder, or come from a run of the store."""
    assert is_name(new_run_name(title))
