"""`phi3 run`: every line is counted, and an interrupted run can be finished."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
from contextlib import contextmanager

import pytest

from phi3_ops import cli
from phi3_ops.cli._columns import parse_column_mapping
from phi3_ops.cli.run import failure_limit
from phi3_ops.pf import expectations
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.runs.properties import CONNECTIONS_PROPERTY
from polling import wait_until
from processes import BIN, phi3
from slow_endpoint import slow_endpoint

FILES = ["--flow", "qa", "--data", "DATA"]
QUESTION = ["--column-mapping", "input_data=${data.question}"]


@pytest.fixture
def endpoint(request):
    with slow_endpoint(*getattr(request, "param", (0.02,))) as server:
        save_connection("r", {"endpoint": server.url, "contract": "chat"}, "key")
        yield server
        delete_connection("r")


def slow(*arguments):
    return pytest.mark.parametrize("endpoint", [arguments], indirect=True)


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "q.jsonl", [f"q{n}" for n in range(40)])


def write(path, questions):
    rows = [{"question": question, "ground_truth": question} for question in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*words):
    return phi3("run", "--connection", "r", *words)


@contextmanager
def default_signals():
    """Restore the signal handlers, which the command replaces."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def name_of(done):
    return done.stdout.partition(":")[0]


def test_an_input_can_have_an_empty_text():
    assert parse_column_mapping(["context=", "a=${data.b}"]) == {"context": "", "a": "${data.b}"}


def test_the_run_is_one_of_prompt_flows(endpoint, data):
    done = run("--flow", "qa", "--data", data, *QUESTION)
    assert done.returncode == 0, done.stderr
    assert "40 lines, 0 failed" in done.stdout
    assert f"{40 * 18} tokens" in done.stdout
    stored = pf_client().runs.get(name_of(done))
    assert stored.status == "Completed"
    details = pf_client().get_details(stored, all_results=True)
    assert list(details["outputs.answer"]) == [f"q{n}" for n in range(40)]
    assert json.loads(stored.properties[CONNECTIONS_PROPERTY]) == {"answer": {"connection": "r"}}


def test_answers_are_scored_over_all_lines(endpoint, tmp_path):
    data = write(tmp_path / "q.jsonl", ["a", "fail", "b", "c"])
    done = run("--flow", "qa", "--data", data, *QUESTION, "--evaluate", "--max-failures", "25%")
    assert done.returncode == 0, done.stderr
    assert "4 lines, 1 failed" in done.stdout and "told to fail" in done.stdout
    (row,) = [line.split() for line in done.stdout.splitlines() if "exact_match" in line]
    assert row[1] == "0.7500" and row[-1] == "4"


@pytest.mark.parametrize("allowed, code", [("0", 1), ("1", 0), ("24%", 1), ("25%", 0)])
def test_more_failures_than_allowed_are_a_failure(endpoint, tmp_path, allowed, code, monkeypatch):
    monkeypatch.setenv("PF_LOGGING_LEVEL", "CRITICAL")
    data = write(tmp_path / "q.jsonl", ["a", "fail", "b", "c"])
    words = ["run", "--flow", "qa", "--data", str(data), *QUESTION, "--connection", "r"]
    with default_signals():
        assert cli.main([*words, "--max-failures", allowed]) == code


@slow(0.3)
def test_ctrl_c_keeps_the_answers_and_resume_runs_only_the_rest(endpoint, tmp_path):
    data = write(tmp_path / "q.jsonl", [f"q{n}" for n in range(30)])
    words = ["run", "--flow", "qa", "--data", data, *QUESTION, "--connection", "r"]
    command = [BIN / "phi3", *map(str, words), "--in-flight", "3"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        wait_until(lambda: sum(endpoint.asked.values()) >= 4)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    answered = dict(endpoint.asked)
    assert 4 <= len(answered) < 30
    (interrupted,) = [line for line in err.splitlines() if "interrupted" in line]
    counts = f"{len(answered)} answered, {30 - len(answered)} not asked"
    assert interrupted.startswith(f"phi3: interrupted: {counts}; go on with: phi3 run --resume qa-")
    endpoint.seconds = 0.01
    done = phi3("run", "--resume", interrupted.split()[-1])
    assert done.returncode == 0, done.stderr
    assert "30 lines, 0 failed" in done.stdout
    assert all(endpoint.asked[question] == 1 for question in answered)  # no line ran again
    assert len(endpoint.asked) == 30


@slow(0.3)
def test_a_killed_run_is_finished_by_resume(endpoint, tmp_path):
    data = write(tmp_path / "q.jsonl", [f"q{n}" for n in range(20)])
    words = ["run", "--flow", "qa", "--data", data, *QUESTION, "--connection", "r"]
    command = [BIN / "phi3", *map(str, words), "--in-flight", "4", "--name", "killed"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: sum(endpoint.asked.values()) >= 8)
        endpoint.seconds = 60  # the run does not end before it is killed
        name = next(r.name for r in pf_client().runs.list() if r.name.startswith("killed"))
        early = phi3("run", "--resume", name)
        assert early.returncode == 1 and "still running" in early.stderr
        child.kill()
    endpoint.seconds = 0.01
    done = phi3("run", "--resume", name)
    assert done.returncode == 0, done.stderr
    assert "20 lines, 0 failed" in done.stdout
    assert len(endpoint.asked) == 20


def test_resume_runs_failed_lines_again(endpoint, tmp_path):
    data = write(tmp_path / "q.jsonl", ["a", "fail", "b"])
    first = run("--flow", "qa", "--data", data, *QUESTION)
    assert first.returncode == 1 and "3 lines, 1 failed" in first.stdout
    endpoint.failing.clear()
    again = phi3("run", "--resume", name_of(first))
    assert again.returncode == 0 and "3 lines, 0 failed" in again.stdout, again.stderr
    assert endpoint.asked == {"a": 1, "b": 1, "fail": 1}


def test_a_complete_run_has_nothing_to_resume(endpoint, tmp_path, capsys):
    data = write(tmp_path / "q.jsonl", ["a", "b"])
    words = ["run", "--flow", "qa", "--data", str(data), *QUESTION, "--connection", "r"]
    with default_signals():
        assert cli.main([*words, "--name", "complete"]) == 0
        name = capsys.readouterr().out.partition(":")[0]
        assert cli.main(["run", "--resume", "complete", "--evaluate"]) == 0
    newest, nothing, *scores = capsys.readouterr().out.splitlines()
    assert newest == f"complete is the newest run of that name, {name}"
    assert nothing == f"{name} is complete: 2 of 2 lines are answered; nothing to do"
    assert any("exact_match" in line for line in scores)
    assert endpoint.asked == {"a": 1, "b": 1}


def test_a_wrong_evaluation_is_refused_before_the_first_question(endpoint, tmp_path, capsys):
    data = tmp_path / "q.jsonl"
    data.write_text('{"question": "a"}\n')
    words = ["run", "--flow", "qa", "--data", str(data), *QUESTION, "--connection", "r"]
    with default_signals():
        assert cli.main([*words, "--evaluate"]) == 1
        assert "needs a column 'ground_truth'" in capsys.readouterr().err
        assert cli.main([*words, "--evaluate", "nowhere"]) == 1
        assert "nowhere is not a flow" in capsys.readouterr().err
    assert not endpoint.asked


def test_a_data_file_that_has_changed_is_refused(endpoint, data):
    first = run("--flow", "qa", "--data", data, *QUESTION)
    data.write_text(data.read_text() * 2)
    again = phi3("run", "--resume", name_of(first))
    assert again.returncode == 1
    assert f"{data} has changed since" in again.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--flow", "qa"], 2, "add --flow and --data, or --resume"),
        (["--resume", "x", "--flow", "qa"], 2, "--resume takes flow"),
        (
            [*FILES, "--on-azure", "--on-foundry"],
            2,
            "--on-azure and --on-foundry exclude each other",
        ),
        ([*FILES, "--on-foundry", "--replay"], 2, "are for batches on this machine"),
        ([*FILES, "--on-foundry", "--run", "x"], 2, "are for batches on this machine"),
        (["--resume", "x", "--on-foundry"], 2, "are for batches on this machine"),
        ([*FILES, "--on-foundry", "--compute", "c"], 2, "--compute goes with --on-azure"),
        ([*FILES, "--on-foundry", "--instances", "1"], 2, "--instances goes with --on-azure"),
        ([*FILES, "--on-foundry", "--mini-batch-size", "1"], 2, "--mini-batch-size goes with"),
        ([*FILES, "--fetch", "foundry-1", "--retries", "0"], 2, "--retries goes with --on-azure"),
        ([*FILES, "--retries", "0"], 2, "--retries goes with --on-azure"),
        ([*FILES, "--follow"], 2, "--follow and --dry-run go with --on-azure or --on-foundry"),
        ([*FILES, "--dry-run"], 2, "--follow and --dry-run go with --on-azure or --on-foundry"),
        ([*FILES, "--fetch", "x", "--dry-run"], 2, "--fetch and --dry-run exclude each other"),
        (["--resume", "nowhere"], 1, "the run 'nowhere' does not exist"),
        (["--flow", "nowhere", "--data", "DATA"], 1, "nowhere is not a flow"),
        (["--flow", "qa", "--data", "DATA"], 1, "the input 'input_data'"),
        (["--flow", "qa", "--data", "nowhere.jsonl"], 1, "nowhere.jsonl does not exist"),
        (["--flow", "qa", "--data", os.devnull], 1, f"{os.devnull} is empty"),
        (
            ["--flow", "qa", "--data", "DATA", "--column-mapping", "input_data=${data.quesion}"],
            1,
            "the input 'input_data' is mapped to ${data.quesion}, which does not exist",
        ),
        (
            ["--flow", "qa", "--data", "DATA", "--column-mapping", "x"],
            1,
            "not of the form INPUT=VALUE",
        ),
        (["--flow", "qa", "--data", "DATA", "--column-mapping", "x=1"], 1, "has no input 'x'"),
        (
            [
                "--flow",
                "eval",
                "--data",
                "DATA",
                "--column-mapping",
                "answer=${data.question}",
                "--connection",
                "r",
            ],
            1,
            "uses a connection",
        ),
    ],
)
def test_a_run_that_cannot_start_is_one_line(data, words, code, message, capsys):
    with default_signals():
        assert cli.main(["run", *(str(data) if w == "DATA" else w for w in words)]) == code
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_an_untested_prompt_flow_is_named(endpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(expectations, "version", lambda package: "1.19.0")
    data = write(tmp_path / "q.jsonl", ["a"])
    words = ["run", "--flow", "qa", "--data", str(data), *QUESTION, "--connection", "r"]
    with default_signals():
        assert cli.main([*words, "--engine", "promptflow"]) == 0
    warning, *_ = capsys.readouterr().err.splitlines()
    assert warning == (
        "warning: Prompt flow 1.19.0 is untested; using its own engine, which does not slow down on 429"
    )


@pytest.mark.parametrize(
    ("text", "failed", "code"),
    [
        ("0", 0, 0),
        ("0", 1, 1),
        ("3", 3, 0),
        ("3", 4, 1),
        ("2.5%", 2, 0),
        ("2.5%", 3, 1),
        ("100%", 100, 0),
    ],
)
def test_the_limit_is_a_number_or_a_percentage(text, failed, code):
    assert failure_limit(text).exit_code(failed, 100) == code


@pytest.mark.parametrize("text", ["x", "-1", "101%", "%", "1.5", ""])
def test_a_limit_that_is_neither_is_explained(text):
    with pytest.raises(argparse.ArgumentTypeError, match="neither a number of lines nor a perc"):
        failure_limit(text)
