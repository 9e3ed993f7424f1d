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
    assert "fail  packages: local: the package packaging is not installed" in done.stdout
    assert f"-> {install_command('local')}" in done.stdout


RESULTS = [
    CheckResult("python", ("local", "batch"), "ok", "3.11.7"),
    CheckResult("connection", ("local",), "fail", "does not exist", "phi3 connect"),
]


@pytest.fixture
def results(monkeypatch):
    """The command prints these results, whatever it was asked to check."""
    monkeypatch.setattr("phi3_ops.doctor.run_checks", lambda *arguments: RESULTS)


def test_a_table_and_the_state_of_each_way(results, capsys):
    assert main(["doctor", "--for", "local", "batch"]) == 1
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["ok python 3.11.7", "fail connection does not exist", "-> phi3 connect"]
    assert lines[-2:] == ["local not ready: connection", "batch ready"]


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


def test_plain_text_without_rich(results, capsys, monkeypatch):
    monkeypatch.setattr(command, "_screen", lambda: None)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok    python: 3.11.7",
        "fail  connection: does not exist",
        "      -> phi3 connect",
    ]


def test_an_unknown_way_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--for", "nothing"])
    assert end.value.code == 2
    assert "--for" in capsys.readouterr().err
