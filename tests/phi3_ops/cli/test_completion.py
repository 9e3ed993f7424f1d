"""`phi3 completion`: the scripts, and the words that a shell gets when a user presses Tab."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from phi3_ops.cli import main
from phi3_ops.cli.completion import SHELLS
from processes import BIN


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "phi3" in capsys.readouterr().out


def test_bash_accepts_its_script(capsys):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    done = subprocess.run([shutil.which("bash"), "-n"], input=script, text=True, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("phi3 conn", {"connect", "connections"}),
        ("phi3 run --flow q", {"qa"}),
        ("phi3 flow lo", {"lock"}),
    ],
)
def test_tab(line, words, tmp_path):
    answer = tmp_path / "words"
    variables = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    subprocess.run([BIN / "phi3"], env={**os.environ, **variables}, timeout=60, check=False)
    assert {word.strip() for word in answer.read_text().split("\n")} == words
