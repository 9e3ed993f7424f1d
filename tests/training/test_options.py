"""The command line: defaults, wrong usage, and the options that override the recipe."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import options
import pytest
from inputs import TrainError, read_recipe
from training_run import TINY_RECIPE, TRAINING, arguments


def parse(*extra):
    line = arguments(Path("rows.jsonl"), Path("out"), TINY_RECIPE, *extra)
    return options.parse(line, "description")


def test_checkpoints_are_in_the_output_folder_by_default():
    assert parse().checkpoint_dir == Path("out/checkpoints")
    assert parse("--checkpoint-dir", "elsewhere").checkpoint_dir == Path("elsewhere")


def test_the_command_line_overrides_the_recipe():
    recipe = read_recipe(TINY_RECIPE)
    assert options.override(recipe, parse()) == recipe
    extra = ["--epochs", "0.5", "--seed", "7", "--model", "phi-4-mini"]
    changed = options.override(recipe, parse(*extra))
    assert changed.trainer == recipe.trainer | {"num_train_epochs": 0.5}
    assert (changed.seed, changed.model) == (7, "microsoft/Phi-4-mini-instruct")


def test_epochs_replace_the_steps_of_the_recipe():
    recipe = read_recipe(TINY_RECIPE)
    recipe = replace(recipe, trainer={"max_steps": 5, "learning_rate": 1e-3})
    changed = options.override(recipe, parse("--epochs", "2"))
    assert changed.trainer == {"num_train_epochs": 2, "learning_rate": 1e-3}


def test_settings_of_the_tiny_model_are_only_those_of_the_tiny_model():
    recipe = read_recipe(TINY_RECIPE)
    assert options.override(recipe, parse("--model", "tiny")).tiny == recipe.tiny
    assert options.override(recipe, parse("--model", "phi-4-mini")).tiny == {}
    for name, problem in (("lora", "no tiny.hidden_size"), ("qlora", "no tiny.hidden_size")):
        recipe = read_recipe(TINY_RECIPE.with_name(f"{name}.yaml"))
        with pytest.raises(TrainError, match=f"{problem}, .*: use recipes/tiny-cpu.yaml"):
            options.override(recipe, parse("--model", "tiny"))


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (["--rows", "0"], "argument --rows: '0' is not a whole number above 0"),
        (["--rows", "1.5"], "argument --rows: '1.5' is not a whole number above 0"),
        (["--epochs", "many"], "argument --epochs: 'many' is not a number above 0"),
        (["--epochs", "-1"], "argument --epochs: '-1' is not a number above 0"),
    ],
)
def test_a_wrong_number_is_refused_in_words(capsys, extra, problem):
    with pytest.raises(SystemExit) as caught:
        parse(*extra)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"train.py: error: {problem}"


@pytest.mark.parametrize("extra", [["--rows", "0"], ["--epochs", "many"], ["--nonsense"]])
def test_wrong_usage_exits_with_2(train_cli, tmp_path, extra):
    assert train_cli(tmp_path / "out", *extra).returncode == 2


def test_help_needs_no_library():
    line = [sys.executable, "-X", "importtime", str(TRAINING / "train.py"), "--help"]
    finished = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert "--recipe" in finished.stdout
    assert not {"torch", "transformers", "yaml"} & {
        row.rpartition("|")[2].strip() for row in finished.stderr.splitlines()
    }
