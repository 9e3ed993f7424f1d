"""The commands as a user types them: help, usage, and one line for every error."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import types

import pytest

from phi3_ops.cli import COMMANDS, main
from phi3_ops.errors import OpsError
from phi3_ops.installation import install_command
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
    "words", [["nonsense"], ["data", "--nonsense"], ["endpoint", "--port", "70000"]]
)
def test_wrong_usage_exits_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


BAD_INPUT = {
    "data file missing": (["data", "--source", "none.jsonl"], "none.jsonl does not exist"),
    "data malformed": (["data", "--source", "bad.jsonl"], "bad.jsonl, line 1: not JSON"),
    "train file missing": (
        ["finetune", "--local", "--train-file", "none.jsonl", "--eval-file", "none.jsonl"],
        "none.jsonl",
    ),
    "recipe unknown": (
        ["finetune", "--local", "--recipe", "none"],
        "the recipe 'none' does not exist",
    ),
    "model folder none": (["endpoint", "--model", "none"], "the model folder none does not exist"),
    "model folder empty": (["endpoint", "--model", "empty"], "the model folder empty is empty"),
    "endpoint field missing": (["connect"], "the URL of the endpoint is missing"),
    "endpoint not a URL": (["connect", "--endpoint", "x"], "must be a full URL"),
    "endpoint down": (["connect", "--endpoint", "http://127.0.0.1:9/score"], "Connection refused"),
    "key over http": (["connect", "--endpoint", "http://example.org/score"], "plain http"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_1(case, tmp_path):
    words, message = BAD_INPUT[case]
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    done = phi3(*words, cwd=tmp_path, env={"PHI3_KEY": "k", "PHI3_ENDPOINT_KEY": "k"})
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, lines
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_verbose_shows_the_traceback(tmp_path):
    done = phi3("data", "--source", tmp_path / "none.jsonl", "--verbose")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


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


def test_data_prints_the_counts_of_its_manifest(tmp_path):
    done = phi3("data", "--out", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert done.returncode == 0
    assert f"{manifest['rows']['train']} rows to train" in done.stdout


@pytest.fixture
def failing(monkeypatch):
    """Let a command raise an error."""

    def fail(error):
        def run(args):
            raise error

        module = types.SimpleNamespace(arguments=lambda parser: None, run=run)
        monkeypatch.setitem(sys.modules, "phi3_ops.cli.doctor", module)

    return fail


def test_an_error_of_ours_is_its_text_on_one_line(failing, capsys):
    failing(OpsError("one\ntwo", "Do this."))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "phi3 doctor: one two. Do this.\n"


def test_an_unexpected_error_says_how_to_see_more(failing, capsys):
    failing(ValueError("odd"))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "phi3 doctor: ValueError: odd (--verbose shows where)\n"
    with pytest.raises(ValueError, match="odd"):
        main(["doctor", "--verbose"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "full", "a.txt"),
            "the disk is full: free some space, and run the same ",
        ),
        (
            OSError(errno.EROFS, "read-only"),
            "the disk is read-only: choose another folder, and run ",
        ),
        (
            shutil.Error([("a", "b", f"[Errno 28] {os.strerror(errno.ENOSPC)}: 'a'")]),
            "the disk is full",
        ),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full"),
    ],
    ids=["full", "read-only", "copied", "database"],
)
def test_a_disk_that_cannot_be_written_is_one_line(failing, capsys, error, line):
    failing(error)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().err
    assert text.startswith(f"phi3 doctor: {line}") and "verbose" not in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "extra"), [("azure.ai.ml", "azure"), ("torch", "train"), ("rouge_score", "eval")]
)
def test_a_missing_package_is_named_with_its_extra(failing, capsys, module, extra):
    failing(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert main(["doctor"]) == 1
    line = f"the module {module} is not installed. Run {install_command(extra)}"
    assert capsys.readouterr().err == f"phi3 doctor: {line}\n"


def test_an_interrupt_exits_130(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "phi3: interrupted\n"


def test_an_interrupt_can_say_what_was_done(failing, capsys):
    failing(KeyboardInterrupt("interrupted: 2 answered"))
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "phi3: interrupted: 2 answered\n"


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("phi3 ")
