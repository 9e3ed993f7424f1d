"""Two processes train what one does: the same curve, one whole model."""

import sys
from dataclasses import replace
from pathlib import Path

import distributed
import pytest
from inputs import TrainError, read_recipe
from small import arguments, metrics, together, weights, write
from training_run import TRAINING

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        sys.platform != "linux", reason="two processes and gloo, as on Azure's nodes"
    ),
]
HERE = Path(__file__).parent
FULL = TRAINING / "recipes" / "full.yaml"
FEW = {"num_train_epochs": 3, "logging_steps": 1, "save_steps": 4}


@pytest.fixture(scope="module")
def alone(train_cli, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "out"
    done = train_cli(out, recipe=write(out.parent / "small.yaml", **FEW))
    assert done.returncode == 0, done.stderr
    return out


def curve(out: Path) -> list[float]:
    (file,) = out.glob("mlruns/*/*/metrics/loss")
    return [float(line.split()[1]) for line in file.read_text().splitlines()]


def same(out: Path, alone: Path) -> None:
    assert curve(out) == pytest.approx(curve(alone), rel=1e-4)
    assert len(curve(out)) == metrics(out)["steps"] == 9
    assert metrics(out)["train_loss"] == pytest.approx(metrics(alone)["train_loss"], rel=1e-4)
    # The last batches of an evaluation are filled up, and so its rows are not weighed alike.
    assert metrics(out)["eval_loss"] == pytest.approx(metrics(alone)["eval_loss"], rel=1e-2)
    expected, found = weights(alone), weights(out)
    assert {name: each.shape for name, each in found.items()} == {
        name: each.shape for name, each in expected.items()
    }
    for name in expected:
        assert (expected[name] - found[name]).abs().max() < 1e-4
    assert {path.name for path in out.iterdir()} == {path.name for path in alone.iterdir()}


def test_two_processes_train_as_one(alone, rows_file, tmp_path):
    recipe = write(tmp_path / "small.yaml", **FEW)
    done = together(TRAINING / "train.py", *arguments(rows_file, tmp_path / "out", recipe))
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("train.py: ")]
    assert "4 a step (batch 2 x accumulation 1 x processes 2)" in said[0]
    assert len(said) == 2 and said[1].startswith("train.py: done in "), "one process speaks"
    same(tmp_path / "out", alone)


@pytest.mark.slow  # a third training, in two processes
def test_a_sharded_model_is_trained_as_one_and_saved_whole(alone, rows_file, tmp_path):
    fsdp = read_recipe(FULL).fsdp
    recipe = write(tmp_path / "small.yaml", fsdp=fsdp, **FEW)
    line = arguments(rows_file, tmp_path / "out", recipe)
    kinds = tmp_path / "kinds"
    done = together(HERE / "fsdp_on_cpu.py", *line, KINDS_FILE=str(kinds))
    assert done.returncode == 0, done.stderr
    assert "DTensor" in kinds.read_text(), "nothing was sharded"
    same(tmp_path / "out", alone)


def test_a_wrong_input_is_said_once(rows_file, tmp_path):
    gone = arguments(rows_file, tmp_path / "out", tmp_path / "gone.yaml")
    done = together(TRAINING / "train.py", *gone)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("train.py: ")]
    assert len(lines) == 1 and "cannot read the recipe" in lines[0]


@pytest.mark.parametrize(("size", "accumulation"), [(1, 8), (2, 4), (8, 1), (16, 1)])
def test_a_step_sees_as_many_sequences_whatever_the_number_of_processes(size, accumulation):
    recipe = read_recipe(FULL)
    changed = distributed.arguments(recipe, distributed.Place(size=size), "cuda")
    settings = recipe.trainer | changed
    assert settings["gradient_accumulation_steps"] == accumulation
    assert ("fsdp" in changed) == (size > 1)


def test_fsdp_recomputes_activations_itself():
    recipe = read_recipe(FULL)
    here = distributed.Place(size=8)
    changed = distributed.arguments(recipe, here, "cuda")
    assert changed["fsdp_config"]["activation_checkpointing"] is True
    assert changed["gradient_checkpointing"] is False
    without = replace(recipe, trainer=recipe.trainer | {"gradient_checkpointing": False})
    changed = distributed.arguments(without, here, "cuda")
    assert changed["fsdp_config"]["activation_checkpointing"] is False


def test_a_place_is_what_the_environment_says(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.place() == distributed.ALONE
    # What Azure ML's PyTorch distribution sets, besides MASTER_ADDR and MASTER_PORT.
    for name, value in {
        "RANK": "9",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "16",
        "NODE_RANK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert distributed.place() == distributed.Place(rank=9, local_rank=1, size=16)
    assert not distributed.place().main
    monkeypatch.setenv("RANK", "")
    with pytest.raises(TrainError, match="start it with torchrun"):
        distributed.place()
