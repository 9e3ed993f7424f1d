"""The commands as a user types them: help, usage, and one line for whatever is wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_ops.cli import COMMANDS, main
from processes import phi3

HEAVY = ("torch", "transformers", "promptflow", "fastapi", "pandas", "requests", "rich")


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_explains_and_imports_nothing_heavy(command):
    words = [command, "--help"] if command else ["--help"]
    code = (
        "import sys\nfrom phi3_ops.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit as end: assert end.code == 0\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: phi3" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["data", "--nonsense"], ["endpoint", "--port", "70000"]]
)
def test_wrong_usage_exits_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def folder_with(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return tmp_path / name


BAD_INPUT = {
    "data file missing": (["data", "--source", "none.jsonl"], "none.jsonl does not exist"),
    "data malformed": (["data", "--source", "bad.jsonl"], "bad.jsonl, line 1: not JSON"),
    "train file missing": (
        ["finetune", "--local", "--train-file", "none.jsonl", "--eval-file", "none.jsonl"],
        "none.jsonl",
    ),
    "recipe unknown": (["finetune", "--local", "--recipe", "none"], "the recipe 'none' does not exist"),
    "model folder none": (["endpoint", "--model", "empty"], "empty"),
    "endpoint field missing": (["connect"], "has no `endpoint`"),
    "endpoint no URL": (["connect", "--endpoint", "x"], "must be a full URL"),
    "endpoint down": (["connect", "--endpoint", "http://127.0.0.1:9/score"], "Connection refused"),
    "key over http": (["connect", "--endpoint", "http://example.org/score"], "plain http"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_1(case, tmp_path):
    words, told = BAD_INPUT[case]
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    done = phi3(*words, cwd=tmp_path, env={"PHI3_KEY": "k", "PHI3_ENDPOINT_KEY": "k"})
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    # train.py says its own line in front of the command's.
    assert len(lines) == (2 if words[0] == "finetune" and "--recipe" not in words else 1), lines
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_verbose_shows_the_traceback(tmp_path):
    done = phi3("data", "--source", tmp_path / "none.jsonl", "--verbose")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_ctrl_c_within_a_del_is_not_lost():
    """Python drops what is raised there."""
    program = """
import signal, sys, time, types
import phi3_ops.cli

class Signals:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def run(args):
    Signals()
    time.sleep(600)

sys.modules["phi3_ops.cli.doctor"] = types.SimpleNamespace(arguments=lambda parser: None, run=run)
sys.argv = ["phi3", "doctor"]
sys.exit(phi3_ops.cli.entry())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "phi3: interrupted\n")


def test_a_port_in_use_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ("endpoint", "--model", tmp_path, "--port", port, "--workdir", tmp_path / "w")
        done = phi3(*words, "--no-connect", env={"PHI3_ENDPOINT_KEY": "k"})
    assert done.returncode == 1
    assert str(port) in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_public_address_needs_a_key_of_its_own(tmp_path):
    done = phi3("endpoint", "--model", tmp_path, "--host", "0.0.0.0", "--no-connect")
    assert done.returncode == 1
    assert "PHI3_ENDPOINT_KEY is not set" in done.stderr


class TestConnect:
    def test_checks_then_writes(self):
        with echo_endpoint() as server:
            words = ("connect", "--name", "c", "--endpoint", server.url)
            done = phi3(*words, env={"PHI3_KEY": KEY})
        assert done.returncode == 0, done.stderr
        assert "connection 'c' created" in done.stdout
        assert KEY not in done.stdout + done.stderr
        assert "deleted 'c'" in phi3("connect", "--name", "c", "--delete").stdout

    def test_a_wrong_key_writes_nothing(self):
        with echo_endpoint() as server:
            words = ("connect", "--name", "w", "--endpoint", server.url)
            done = phi3(*words, env={"PHI3_KEY": "wrong-key"})
        assert done.returncode == 1
        assert "refused the key" in done.stderr and "wrong-key" not in done.stderr
        assert "connection 'w' does not exist" in phi3("connect", "--name", "w", "--delete").stdout

    def test_asks_for_no_key_without_a_terminal(self):
        done = phi3("connect", "--endpoint", "http://127.0.0.1:9/score")
        assert done.returncode == 1
        assert "PHI3_KEY" in done.stderr


def test_data_writes_what_it_says(tmp_path):
    done = phi3("data", "--out", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert done.returncode == 0
    assert f"{manifest['rows']['train']} rows to train" in done.stdout
