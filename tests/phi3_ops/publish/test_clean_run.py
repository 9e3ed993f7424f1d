"""The clean run of a staged flow: its inputs, its environment, and its errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from flow_folders import write_echo_flow
from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import copy_flow
from phi3_ops.publish import clean_run
from phi3_ops.publish.clean_run import (
    OWN_VARIABLES,
    PHI3_RUNNER,
    RUNNER,
    CleanEnvironment,
    run_clean,
    sample_row,
)
from phi3_ops.publish.connection_fields import ConnectionFields


def test_inputs_are_the_first_sample_then_the_defaults(home):
    flow = home / "chat"
    (flow / "samples.jsonl").write_text('{"question": "one"}\n{"question": "two"}\n')
    assert sample_row(flow) == {"question": "one", "chat_history": []}
    (flow / "samples.jsonl").unlink()
    assert sample_row(flow) == {"question": "Who founded Microsoft?", "chat_history": []}


def test_an_input_without_a_value_is_named(tmp_path):
    copy_flow(paths.FLOWS / "eval", tmp_path / "eval")
    (tmp_path / "eval" / "samples.jsonl").write_text('{"answer": "x"}\n')
    with pytest.raises(OpsError, match="'ground_truth' has no default"):
        sample_row(tmp_path / "eval")


# -- commands ----------------------------------------------------------------------------------------


def run_python(tmp_path, code, text="", limit_s=60, **variables):
    CleanEnvironment(tmp_path, limit_s, variables).run([sys.executable, "-c", code], "it", text)


def test_a_command_has_only_the_given_variables_and_folder(tmp_path):
    code = "import os; open('out', 'w').write(' '.join([*os.environ, input()]))"
    run_python(tmp_path, code, "hello", MINE="1")
    words = (tmp_path / "out").read_text().split()
    assert {"MINE", "hello"} <= set(words)
    assert not {"PATH", "HOME"} & set(words)


def test_standard_input_is_never_the_terminal(tmp_path):
    with pytest.raises(OpsError, match="it failed: EOFError"):
        run_python(tmp_path, "input()")


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("Traceback\\nValueError: no\\n\\n", "it failed: ValueError: no"),
        ("ERROR: first\\nERROR: second\\n\\nnotice: a new pip", "it failed: ERROR: first"),
        ("", "it failed: it printed nothing"),
    ],
)
def test_an_error_is_one_line(tmp_path, stderr, message):
    with pytest.raises(OpsError) as caught:
        run_python(tmp_path, f"import sys; sys.stderr.write('{stderr}'); sys.exit(3)")
    assert str(caught.value) == message


def test_a_command_has_a_limit(tmp_path):
    with pytest.raises(OpsError, match="it took more than 0 s. Raise --timeout."):
        run_python(tmp_path, "import time; time.sleep(60)", limit_s=0.1)


# -- the run -----------------------------------------------------------------------------------------


TOOL = """\
from phi3_tools.flow import tool


@tool
def echo(text: str) -> str:
    return text
"""


@pytest.fixture
def commands(monkeypatch):
    """The commands of a clean run; the flow's outputs are written at once."""
    calls = []

    def run(command, **options):
        calls.append(SimpleNamespace(command=command, **options))
        if RUNNER in command or PHI3_RUNNER in command:
            import json

            task = json.loads(options["input"])
            with open(task["out"], "w") as file:
                json.dump({"answer": task["inputs"]["question"]}, file)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(clean_run.subprocess, "run", run)
    return calls


def test_the_engine_of_this_project_needs_its_packages(commands, home):
    run_clean(home / "chat", {}, lambda line: None, limit_s=5, engine="phi3")
    _, pip, flow = commands
    assert "pyyaml>=6.0" in pip.command and PHI3_RUNNER in flow.command


def test_the_runner_of_this_project_runs_a_flow(tmp_path):
    flow = write_echo_flow(tmp_path / "echo", TOOL)
    task = {"flow": str(flow), "connections": {}, "inputs": {"text": "a"}}
    task["out"] = str(tmp_path / "out.json")
    command = [sys.executable, "-c", PHI3_RUNNER]
    subprocess.run(command, input=json.dumps(task), text=True, check=True, timeout=60)
    assert json.loads((tmp_path / "out.json").read_text()) == {"text": "a"}


def test_the_keys_go_through_standard_input_only(commands, monkeypatch, home):
    for name in OWN_VARIABLES:
        monkeypatch.setenv(name, "mine")
    fields = ConnectionFields({"endpoint": "http://a"}, {"key": "a-secret-key"})
    lines = []
    outputs = run_clean(home / "chat", {"phi3": fields}, lines.append, limit_s=5)
    assert outputs == {"answer": "Who founded Microsoft?"}
    venv, pip, flow = commands
    assert venv.command[1:3] == ["-m", "venv"] and "install" in pip.command
    assert '"phi3": {"configs": {"endpoint": "http://a"}, "secrets": {"key": "a-secret-key"}}' in (
        flow.input
    )
    for call in commands:
        assert "a-secret-key" not in " ".join(call.command)
        assert "a-secret-key" not in "".join(call.env.values())
        assert "mine" not in call.env.values()
        assert call.env["PF_HOME_DIRECTORY"] != os.environ["PF_HOME_DIRECTORY"]
        assert (call.timeout, call.cwd) == (5, home / "chat")
    assert lines[0] == "making a clean virtual environment"
    assert "a-secret-key" not in "".join(lines) + repr(fields)
