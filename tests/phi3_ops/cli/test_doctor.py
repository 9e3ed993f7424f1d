"""`phi3 doctor`: the printed output, also where packages are missing, and wrong usage."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from phi3_ops.cli import doctor as command
from phi3_ops.cli import main
from phi3_ops.doctor import CheckResult
from phi3_ops.installation import install_command


def test_it_runs_where_only_the_tools_are_installed(tmp_path):
    """A wheel without extras does not bring these packages."""
    code = (
        "import sys\n"
        "for name in ('rich', 'pydantic', 'yaml', 'packaging', 'keyring'): sys.modules[name] = None\n"
        "from phi3_ops.cli import main\n"
        "sys.exit(main(['doctor', '--for', 'local', 'batch']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1 and done.stderr == "", done.stderr
    assert "works now\n  nothing yet\n\nneeds something first\n  local " in done.stdout
    assert "    packages: local: the package packaging is not installed" in done.stdout
    assert f"-> {install_command('local')}" in done.stdout


RESULTS = [
    CheckResult("python", ("local", "batch"), "ok", "3.11.7"),
    CheckResult("connection", ("local",), "fail", "does not exist", "phi3 connect"),
]


@pytest.fixture
def results(monkeypatch):
    """The command prints these results, whatever it was asked to check."""
    monkeypatch.setattr("phi3_ops.doctor.run_checks", lambda *arguments: RESULTS)


REPORT = """\
works now
  batch     batches and comparisons: phi3 run, phi3 compare

needs something first
  local     flows on this machine: pf flow test, phi3 connect
    connection: does not exist
    -> phi3 connect

checks
  ok    python: 3.11.7
  fail  connection: does not exist
"""


@pytest.mark.parametrize("has_rich", [True, False])
def test_the_report_begins_with_what_works(results, capsys, monkeypatch, has_rich):
    if not has_rich:
        monkeypatch.setattr(command, "_screen", lambda: None)
    assert main(["doctor", "--for", "local", "batch"]) == 1
    assert capsys.readouterr().out == REPORT


def test_ways_that_lack_the_same_are_one_group_and_long_lines_are_wrapped():
    lines = [text for text, _ in command._report_lines(RESULTS, ["local", "local"], 30)]
    assert lines[3:9] == [
        "needs something first",
        "  local     flows on this",
        "            machine: pf flow",
        "            test, phi3 connect",
        "  local     flows on this",
        "            machine: pf flow",
    ]
    assert lines.count("    -> phi3 connect") == 1


def test_what_was_not_requested_is_no_failure(results, capsys):
    assert main(["doctor"]) == 0
    assert "connection: does not exist" in capsys.readouterr().out


def test_the_json_document(results, capsys):
    assert main(["doctor", "--for", "local", "batch", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "ok": False,
        "ways": {
            "local": {"ready": False, "failed": ["connection"]},
            "batch": {"ready": True, "failed": []},
        },
        "checks": [
            {
                "name": "python",
                "ways": ["local", "batch"],
                "status": "ok",
                "what": "3.11.7",
                "fix": "",
            },
            {
                "name": "connection",
                "ways": ["local"],
                "status": "fail",
                "what": "does not exist",
                "fix": "phi3 connect",
            },
        ],
    }


def test_an_unknown_way_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--for", "nothing"])
    assert end.value.code == 2
    assert "--for" in capsys.readouterr().err
