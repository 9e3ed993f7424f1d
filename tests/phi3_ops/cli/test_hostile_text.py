"""Text from outside that each command can print: none of it controls the terminal."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from flow_folders import write_flow
from hostile_answers import TERMINAL_ATTACK, assert_harmless
from offline_cloud import offline_cloud, write_config
from phi3_ops import azure, cli
from phi3_ops.azure import jobs
from phi3_ops.azure.plan import Plan, Step
from phi3_ops.azure.status import Status, StatusItem
from phi3_ops.azure.teardown import KeptResource, TeardownPlan
from phi3_ops.cli import doctor as doctor_command
from phi3_ops.cli import main
from phi3_ops.doctor.runner import CheckResult
from phi3_ops.errors import OpsError
from phi3_ops.flows.lock import lock_flows
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.remote_runs.foundry import FoundrySubmission
from phi3_ops.terminal import console
from processes import phi3
from slow_endpoint import slow_endpoint


@pytest.mark.finding(
    15,
    "an endpoint answers `phi3 run` with a text that clears the screen",
    "control characters are printed as `‹U+001B›`",
)
def test_the_answer_of_an_endpoint_in_run(tmp_path, monkeypatch):
    (tmp_path / "q.jsonl").write_text('{"question": "q"}\n')
    with slow_endpoint(0.0) as server:
        server.answer = lambda question: (400, {"error": {"message": TERMINAL_ATTACK}})
        save_connection("r", {"endpoint": server.url, "contract": "chat"}, "key")
        done = phi3("run", "--connection", "r", "--flow", "qa", "--data", tmp_path / "q.jsonl",
                    "--column-mapping", "input_data=${data.question}")  # fmt: skip
        delete_connection("r")
    assert "first failure: " in done.stdout
    assert_harmless(done.stdout + done.stderr, complete=False)


@pytest.mark.finding(
    15,
    "the header of a CSV file contains an escape sequence",
    "control characters are printed as `‹U+001B›`",
)
def test_the_header_of_a_csv_file_in_data(tmp_path):
    text = TERMINAL_ATTACK.replace("\ud800", "")
    (tmp_path / "in.csv").write_text(f"{text},answer\nq,a\n", encoding="utf-8")
    done = phi3("data", "--source", "in.csv", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert_harmless(done.stdout + done.stderr, complete=False)  # its semicolons separate columns


def test_the_name_of_a_source_in_data(tmp_path):
    name = "[red]\x1b[2J\u202e.csv"
    (tmp_path / name).write_text("prompt,answer\n" + "".join(f"q{n},a{n}\n" for n in range(9)))
    done = phi3("data", "--source", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[red]‹U+001B›[2J‹U+202E›.csv" in done.stdout and "\x1b" not in done.stdout


@pytest.mark.parametrize("kind", [OpsError, ValueError])
def test_the_line_of_an_error(kind, monkeypatch, capsys):
    def fail(args):
        raise kind(TERMINAL_ATTACK)

    monkeypatch.setattr("phi3_ops.cli.status.run", fail)
    assert main(["status"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert_harmless(captured.err)


def test_the_traceback_of_an_error(monkeypatch, capsys):
    def fail(args):
        raise ValueError(TERMINAL_ATTACK)

    monkeypatch.setattr("phi3_ops.cli.status.run", fail)
    monkeypatch.setattr(sys, "argv", ["phi3", "status", "--verbose"])
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    monkeypatch.setattr(cli, "skip_final_collection", lambda: None)
    assert cli.entry() == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback ")
    assert_harmless(error)


@pytest.fixture
def configured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_resources_in_status(configured, monkeypatch, capsys, words):
    item = StatusItem(*[TERMINAL_ATTACK] * 3, 1, TERMINAL_ATTACK, 1, *[TERMINAL_ATTACK] * 3)
    monkeypatch.setattr(azure, "read_status", lambda cloud: Status([item]))
    assert main(["status", *words]) == 0
    assert_harmless(capsys.readouterr().out, complete=False)


def hostile_plan(exists=False):
    return Plan("down", [Step(TERMINAL_ATTACK, lambda: exists, lambda: None)])


def test_resources_in_down(configured, monkeypatch, capsys):
    resource = KeptResource("endpoint", TERMINAL_ATTACK, TERMINAL_ATTACK)
    teardown = TeardownPlan(hostile_plan(), [resource])
    monkeypatch.setattr(azure, "plan_teardown", lambda *arguments, **options: teardown)
    assert main(["down", "--dry-run"]) == 0
    assert_harmless(capsys.readouterr().out)


@pytest.mark.parametrize(("exists", "dry_run"), [(True, False), (False, True), (False, False)])
def test_the_steps_of_a_plan(exists, dry_run, capsys):
    hostile_plan(exists).run(console(), dry_run=dry_run)
    assert_harmless(capsys.readouterr().out)


@pytest.mark.parametrize("has_rich", [True, False])
@pytest.mark.parametrize("words", [[], ["--json"]])
def test_the_checks_of_doctor(monkeypatch, capsys, has_rich, words):
    text = TERMINAL_ATTACK
    results = [CheckResult(text, ("local",), status, text, text) for status in ("ok", "fail")]
    monkeypatch.setattr("phi3_ops.doctor.run_checks", lambda *arguments: results)
    if not has_rich:
        monkeypatch.setattr(doctor_command, "_screen", lambda: None)
    assert main(["doctor", "--for", "local", *words]) == 1
    assert_harmless(capsys.readouterr().out, complete=False)


def test_the_flows_of_flow_list(configured, tmp_path, monkeypatch, capsys):
    name = "\x1b[2J[red]"
    write_flow(tmp_path / "flows" / name)
    lock_flows(tmp_path / "flows")
    assert main(["flow", "list", "--folder", str(tmp_path / "flows")]) == 0
    printed = capsys.readouterr().out
    assert "‹U+001B›[2J[red]" in printed and "\x1b" not in printed


def test_the_uploaded_flows_of_flow_list(configured, tmp_path, monkeypatch, capsys):
    write_flow(tmp_path / "flows" / "one")
    lock_flows(tmp_path / "flows")
    text = TERMINAL_ATTACK
    flow = SimpleNamespace(name=text, tags={"name": text, "version": text, "sha256": text})
    monkeypatch.setattr("phi3_ops.publish.FoundryProject.all", lambda project: [flow])
    assert main(["flow", "list", "--azure", "--folder", str(tmp_path / "flows")]) == 0
    assert_harmless(capsys.readouterr().out, complete=False)


def test_the_log_of_a_followed_job(monkeypatch, capsys):
    cloud = offline_cloud()
    stream = SimpleNamespace(
        stream=lambda name: print(TERMINAL_ATTACK, "\nnext", sep="\r"),
        get=lambda name: SimpleNamespace(status="Completed"),
    )
    cloud.ml = SimpleNamespace(jobs=stream)
    jobs.follow_job(cloud, "job")
    printed = capsys.readouterr().out
    assert_harmless(printed)
    assert "\n\nnext" in printed


def test_the_log_of_a_followed_run(monkeypatch, capsys):
    submission = object.__new__(FoundrySubmission)
    run = SimpleNamespace(status="Completed")
    monkeypatch.setattr(submission, "_read_state", lambda: (run, TERMINAL_ATTACK), raising=False)
    assert submission.follow()
    assert_harmless(capsys.readouterr().out)
