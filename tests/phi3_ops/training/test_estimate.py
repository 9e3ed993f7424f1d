"""`phi3 finetune --estimate`: the command that it runs, the table and the JSON."""

import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from documented_commands import documented
from phi3_ops.cli import main
from phi3_ops.errors import OpsError
from phi3_ops.training import estimate

MEMORY = {
    "framework": 0.8, "weights": 7.7, "gradients": 0.1, "optimizer": 0.2, "activations": 1.9,
    "peak": 14.2,
}  # fmt: skip
ESTIMATE = {
    "model": "a/b", "recipe": "lora",
    "machine": {"name": "T4", "card": "T4", "cards": 1, "memory_gb": 17.2},
    "memory_gb": MEMORY, "fits": True, "parameters": 3800, "trained_parameters": 25, "steps": 60,
    "tokens": 9, "flops": 9, "seconds": 7200.0, "alternatives": [], "notes": ["a note"],
}  # fmt: skip
ALTERNATIVE = {"change": "a smaller batch", "memory_gb": MEMORY, "seconds": 60.0}


@pytest.fixture
def commands(monkeypatch):
    """The commands that were run; each of them answers ESTIMATE."""
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, json.dumps(ESTIMATE))

    monkeypatch.setattr(estimate.subprocess, "run", run)
    return commands


@pytest.fixture
def files(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.touch()
    return ["--train-file", str(file), "--eval-file", str(file)]


@documented("phi3 finetune --estimate --recipe lora --machine Standard_NC24ads_A100_v4")
def test_the_documented_command(commands, files, capsys):
    words = ["--recipe", "lora", "--machine", "Standard_NC24ads_A100_v4"]
    assert main(["finetune", "--estimate", *files, *words]) == 0
    (command,) = commands
    assert command[command.index("--machine") + 1] == "Standard_NC24ads_A100_v4"
    assert Path(command[command.index("--recipe") + 1]).name == "lora.yaml"


def test_the_command_and_the_table(commands, files, capsys):
    words = ["--recipe", "lora", "--machine", "T4", "--hourly-price", "1.5", "--rows", "9"]
    assert main(["finetune", "--estimate", *files, *words]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "lora on T4, estimated" in output and "price 3.00" in output
    assert "memory of the machine 17 GB: fits" in output and "a note" in output
    (command,) = commands
    assert Path(command[1]).name == "train.py"
    assert command[command.index("--machine") + 1] == "T4" and "--estimate" in command
    assert command[command.index("--rows") + 1] == "9" and "--model" not in command


def test_json(commands, files, capsys):
    assert main(["finetune", "--estimate", "--recipe", "lora", "--json", *files]) == 0
    assert json.loads(capsys.readouterr().out) == ESTIMATE | {"price": None}


def test_a_missing_file_is_an_error(tmp_path):
    missing = tmp_path / "rows.jsonl"
    with pytest.raises(OpsError, match="rows.jsonl does not exist"):
        estimate.estimate_training(missing, missing)


def test_what_would_fit_is_listed():
    small = ESTIMATE | {"fits": False, "alternatives": [ALTERNATIVE], "price": None}
    (line,) = estimate.describe_alternatives(small)
    assert line == "fits with a smaller batch: 14.20 GB, about 60 s"
    (line,) = estimate.describe_alternatives(small | {"alternatives": []})
    assert line == "nothing that was tried fits: use a smaller model"


def test_unknown_numbers_are_called_unknown():
    console = Console(width=100)
    with console.capture() as capture:
        values = ESTIMATE | {"seconds": None, "price": None, "fits": False}
        console.print(estimate.estimate_table(values))
    text = " ".join(capture.get().split())
    assert "time unknown price unknown" in text and "17 GB: does not fit" in text
