"""The preparation of a run: its inputs are checked before the slow imports."""

import json
import subprocess
import sys
from pathlib import Path

import options
import pytest
import run
from checkpoints import Checkpoints
from inputs import TrainError
from training_run import ROWS, TINY_RECIPE, TRAINING, arguments, environment

# Runs train.py's main and prints the exit code and the imported modules.
PROGRAM = (
    "import json, sys, train\n"
    "code = train.main(sys.argv[1:])\n"
    "print(json.dumps([code, sorted(sys.modules)]))\n"
)
SLOW_IMPORTS = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "mlflow"}


def test_a_wrong_input_ends_the_run_before_the_slow_imports(rows_file, tmp_path):
    line = arguments(rows_file, tmp_path / "out", TINY_RECIPE, "--model", str(tmp_path))
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, *line],
        cwd=TRAINING,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    code, modules = json.loads(finished.stdout)
    assert code == 1
    assert "the model folder has no config.json" in finished.stderr
    assert not SLOW_IMPORTS & set(modules)


def command_line(rows_file: Path, out: Path, *extra: str) -> options.CommandLine:
    return options.parse(arguments(rows_file, out, TINY_RECIPE, *extra), "")


def test_a_run_is_prepared_from_the_command_line(rows_file, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    extra = ["--rows", "5", "--seed", "9", "--resume"]
    prepared = run.prepare(command_line(rows_file, tmp_path / "out", *extra))
    assert prepared.inputs.train_rows == prepared.inputs.eval_rows == ROWS[:5]
    assert prepared.inputs.recipe.seed == 9
    assert prepared.resume_from is None and prepared.process.is_main
    assert (tmp_path / "out").is_dir()
    checkpoints = tmp_path / "out" / "checkpoints"
    line = f"train.py: no checkpoint in {checkpoints}: starting from the base model\n"
    assert capsys.readouterr().err == line
    (note,) = prepared.inputs.notes
    assert note.startswith("5 rows are few for this recipe: training ")


def test_incomplete_checkpoints_are_removed_by_the_main_process(rows_file, tmp_path, monkeypatch):
    incomplete = tmp_path / "out" / "checkpoints" / "checkpoint-7"
    Checkpoints(incomplete.parent, {}).begin(7)
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    run.prepare(command_line(rows_file, tmp_path / "out"))
    assert incomplete.exists()
    monkeypatch.setenv("RANK", "0")
    run.prepare(command_line(rows_file, tmp_path / "out"))
    assert not incomplete.exists()


def test_a_missing_evaluation_file_is_an_error(rows_file, tmp_path):
    line = command_line(rows_file, tmp_path / "out", "--eval-file", str(tmp_path / "missing"))
    with pytest.raises(TrainError, match="cannot read the rows, .*missing"):
        run.prepare(line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("resume", "line"),
    [
        (True, "train.py: resuming from {}"),
        (False, "train.py: starting from the base model; --resume would continue from {}, "),
    ],
)
def test_a_run_resumes_only_if_asked_to(tmp_path, capsys, monkeypatch, resume, line):
    monkeypatch.delenv("RANK", raising=False)
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    checkpoints = Checkpoints(tmp_path, {"model": "a"})
    checkpoints.mark_complete(5)
    assert run.find_checkpoint(checkpoints, resume) == (checkpoint if resume else None)
    assert capsys.readouterr().err.startswith(line.format(checkpoint))


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("a", "train.py: resuming from {}"),
        ("b", "train.py: starting from the base model: {} was made with another model"),
    ],
)
def test_a_checkpoint_of_another_run_is_ignored(tmp_path, capsys, monkeypatch, model, line):
    monkeypatch.delenv("RANK", raising=False)
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    Checkpoints(tmp_path, {"model": "a"}).mark_complete(5)
    latest = run.find_checkpoint(
        Checkpoints(tmp_path, {"model": model}), False, resume_if_same=True
    )
    assert latest == (checkpoint if model == "a" else None)
    assert capsys.readouterr().err == f"{line.format(checkpoint)}\n"


def test_no_line_is_printed_if_there_is_nothing_to_resume(tmp_path, capsys):
    assert run.find_checkpoint(Checkpoints(tmp_path, {}), resume=False) is None
    assert capsys.readouterr().err == ""
