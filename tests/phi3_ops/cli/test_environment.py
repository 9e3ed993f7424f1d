"""What a command needs from the process's environment: a home folder, a store and standard streams."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

from phi3_ops.cli import COMMANDS, main
from processes import BIN

NO_HOME = (
    "the home folder is unknown: HOME is not set, and the system does not know the user. "
    "Set HOME to a folder that can be written."
)
WORDS = {"flow": ("flow", "lock", "--check"), "compare": ("compare", "a", "b")}
WORDS |= {"run": ("run", "--flow", "qa", "--data", "none.jsonl"), "init": ("init", "project")}
WORDS |= {"completion": ("completion", "bash"), "export": ("export", "tiny", "--to", "gguf")}
WORDS |= {"review": ("review", "a"), "sweep": ("sweep", "sweep.yaml")}


@pytest.fixture
def no_home(monkeypatch, tmp_path):
    """A process without HOME, of a user that has no entry in the system's list of users."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)


@pytest.mark.finding(
    17,
    "HOME is not set, and the user has no passwd entry",
    "one line says so, and no folder named `~` is made",
)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_home_folder_is_one_line(no_home, capsys, tmp_path, command):
    assert main(WORDS.get(command, [command])) == 1
    assert capsys.readouterr().err == f"phi3 {command}: {NO_HOME}\n"
    assert list(tmp_path.iterdir()) == []  # libraries made a folder named `~`


@pytest.mark.parametrize("words", [("--help",), ("down", "--help"), ("--version",)])
def test_help_needs_no_home_folder(no_home, words):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0


def test_a_store_that_cannot_be_created_is_one_line(monkeypatch, capsys, tmp_path):
    """Without the check, Prompt flow's import ended in a NameError."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("PF_HOME_DIRECTORY", str(tmp_path / "file" / "store"))
    assert main(["compare", "a", "b"]) == 1
    assert capsys.readouterr().err == (
        f"phi3 compare: Prompt flow's store {tmp_path}/file/store cannot be created: Not a directory. "
        "Set PF_HOME_DIRECTORY to a folder that can be written.\n"
    )


def run_shell(line, tmp_path, **env):
    """Run a line of the shell in which `phi3` is the command."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **env}
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, env=environment
    )


def test_the_store_is_by_default_in_the_home_folder(tmp_path):
    done = run_shell("env -u PF_HOME_DIRECTORY phi3 compare a b", tmp_path, HOME=str(tmp_path))
    assert done.stderr.startswith("phi3 compare: the run 'a' does not exist"), done.stderr
    assert (tmp_path / ".promptflow").is_dir()


CONFIRM = (
    "from phi3_ops.azure.plan import confirm; from phi3_ops.cli.startup import prepare_process; "
    "prepare_process(); confirm('Delete?', yes=False)"
)


@pytest.mark.finding(
    17,
    "a command that asks for confirmation has no standard input",
    "one line says that --yes is needed",
)
def test_a_question_needs_an_open_standard_input(tmp_path):
    done = run_shell(f'{sys.executable} -c "{CONFIRM}" <&-', tmp_path)
    assert "OpsError: cannot ask for confirmation without a terminal. Give --yes." in done.stderr


def test_a_key_needs_an_open_standard_input(tmp_path):
    words = "phi3 connect --endpoint http://127.0.0.1:9/score"
    done = run_shell(f"env -u PHI3_KEY {words} <&-", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "phi3 connect: the key is missing. Set PHI3_KEY.\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_runs_with_closed_standard_streams(tmp_path, closed):
    done = run_shell(f"phi3 data --out data {closed}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "data" / "train.jsonl").stat().st_size > 0


def test_a_closed_standard_stream_is_replaced_for_child_processes(tmp_path):
    code = (
        "import subprocess, sys; from phi3_ops.cli.startup import prepare_process; "
        "prepare_process(); print(sys.stdin.fileno()); "
        "subprocess.run([sys.executable, '-c', 'import sys; print(repr(sys.stdin.read()))'])"
    )
    done = run_shell(f'{sys.executable} -u -c "{code}" <&-', tmp_path)
    assert (done.stdout.split(), done.stderr) == (["0", "''"], "")
