"""Two processes train the same model as one process: same losses, one complete model."""

import sys
from dataclasses import replace
from pathlib import Path

import distributed
import pytest
from inputs import TrainError, read_recipe
from small import read_metrics, read_weights, run_two_processes, write_recipe
from training_run import TRAINING, arguments

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        sys.platform != "linux", reason="two processes and gloo, as on Azure's nodes"
    ),
]
HERE = Path(__file__).parent
FULL = TRAINING / "recipes" / "full.yaml"
FEW_STEPS = {"num_train_epochs": 3, "logging_steps": 1, "save_steps": 4}


@pytest.fixture(scope="module")
def single_process(train_cli, tmp_path_factory):
    """The output folder of a training in one process."""
    out = tmp_path_factory.mktemp("single") / "out"
    finished = train_cli(out, recipe=write_recipe(out.parent / "small.yaml", **FEW_STEPS))
    assert finished.returncode == 0, finished.stderr
    return out


def logged_losses(out: Path) -> list[float]:
    (file,) = out.glob("mlruns/*/*/metrics/loss")
    return [float(line.split()[1]) for line in file.read_text().splitlines()]


def assert_same_result(out: Path, expected: Path) -> None:
    assert logged_losses(out) == pytest.approx(logged_losses(expected), rel=1e-4)
    metrics, expected_metrics = read_metrics(out), read_metrics(expected)
    assert len(logged_losses(out)) == metrics["steps"] == 9
    assert metrics["train_loss"] == pytest.approx(expected_metrics["train_loss"], rel=1e-4)
    # The last evaluation batches are padded with repeated rows, so the rows have other weights.
    assert metrics["eval_loss"] == pytest.approx(expected_metrics["eval_loss"], rel=1e-2)
    weights, expected_weights = read_weights(out), read_weights(expected)
    assert {name: weight.shape for name, weight in weights.items()} == {
        name: weight.shape for name, weight in expected_weights.items()
    }
    for name in expected_weights:
        assert (expected_weights[name] - weights[name]).abs().max() < 1e-4
    assert {path.name for path in out.iterdir()} == {path.name for path in expected.iterdir()}


def test_two_processes_train_the_same_model_as_one(single_process, rows_file, tmp_path):
    recipe = write_recipe(tmp_path / "small.yaml", **FEW_STEPS)
    out = tmp_path / "out"
    finished = run_two_processes(TRAINING / "train.py", *arguments(rows_file, out, recipe))
    assert finished.returncode == 0, finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("train.py: ")]
    assert "4 per step (batch 2 x accumulation 1 x processes 2)" in lines[0]
    assert len(set(lines)) == len(lines), "one process prints"
    assert [line.startswith("train.py: done in ") for line in lines] == [False, False, True]
    assert_same_result(out, single_process)


@pytest.mark.slow  # a third training, in two processes
def test_a_sharded_model_is_trained_and_saved_like_an_unsharded_one(
    single_process, rows_file, tmp_path
):
    fsdp = read_recipe(FULL).fsdp
    recipe = write_recipe(tmp_path / "small.yaml", fsdp=fsdp, **FEW_STEPS)
    line = arguments(rows_file, tmp_path / "out", recipe)
    types_file = tmp_path / "types"
    finished = run_two_processes(HERE / "fsdp_on_cpu.py", *line, TYPES_FILE=str(types_file))
    assert finished.returncode == 0, finished.stderr
    assert "DTensor" in types_file.read_text(), "nothing was sharded"
    assert_same_result(tmp_path / "out", single_process)


def test_two_processes_print_a_wrong_input_once(rows_file, tmp_path):
    missing = arguments(rows_file, tmp_path / "out", tmp_path / "missing.yaml")
    finished = run_two_processes(TRAINING / "train.py", *missing)
    assert finished.returncode == 1
    lines = [line for line in finished.stderr.splitlines() if line.startswith("train.py: ")]
    assert len(lines) == 1 and "cannot read the recipe" in lines[0]


@pytest.mark.parametrize(("count", "accumulation"), [(1, 8), (2, 4), (8, 1), (16, 1)])
def test_a_step_has_as_many_sequences_for_any_number_of_processes(count, accumulation):
    recipe = read_recipe(FULL)
    process = distributed.ProcessInfo(count=count)
    changes = distributed.trainer_settings(recipe, process, "cuda")
    settings = recipe.trainer | changes
    assert settings["gradient_accumulation_steps"] == accumulation
    assert ("fsdp" in changes) == (count > 1)


def test_fsdp_recomputes_activations_itself():
    recipe = read_recipe(FULL)
    process = distributed.ProcessInfo(count=8)
    settings = distributed.trainer_settings(recipe, process, "cuda")
    assert settings["fsdp_config"]["activation_checkpointing"] is True
    assert settings["gradient_checkpointing"] is False
    without = replace(recipe, trainer=recipe.trainer | {"gradient_checkpointing": False})
    settings = distributed.trainer_settings(without, process, "cuda")
    assert settings["fsdp_config"]["activation_checkpointing"] is False


def test_the_environment_gives_the_ranks(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.current_process() == distributed.SINGLE_PROCESS
    # Azure ML's PyTorch distribution sets these, besides MASTER_ADDR and MASTER_PORT.
    ranks = {"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16", "NODE_RANK": "1"}
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    process = distributed.current_process()
    assert process == distributed.ProcessInfo(rank=9, local_rank=1, count=16)
    assert not process.is_main
    monkeypatch.setenv("RANK", "")
    with pytest.raises(TrainError, match="start the training with torchrun"):
        distributed.current_process()


def see_gpus(monkeypatch, count, **variables):
    import torch

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.finding(
    22,
    "one training process sees several GPUs",
    "one line before loading says how to start one process per GPU",
)
def test_one_process_with_several_gpus_is_one_line_that_says_what_to_do(monkeypatch):
    see_gpus(monkeypatch, 4)
    with pytest.raises(TrainError) as caught:
        distributed.check_gpus(distributed.current_process(), "cuda")
    assert str(caught.value) == (
        "one process sees 4 GPUs, this machine: start one process per GPU, with "
        "`torchrun --nproc-per-node 4 train.py …` or `phi3 finetune --local --processes 4`, "
        "or use one GPU with CUDA_VISIBLE_DEVICES=0"
    )


def test_the_gpus_are_checked_before_the_model_is_loaded(rows_file, tmp_path, monkeypatch, capsys):
    import models
    import torch
    import train

    see_gpus(monkeypatch, 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(models, "load", lambda *args: pytest.fail("the model was loaded"))
    monkeypatch.setattr(train.environment, "configure_before_imports", lambda *args: None)
    monkeypatch.setattr(train.environment, "silence_libraries", lambda *args: None)
    monkeypatch.setattr(train.stopping, "install_handlers", lambda: None)
    monkeypatch.setenv("MLFLOW_RUN_ID", "")
    recipe = write_recipe(tmp_path / "small.yaml")
    assert train.main(arguments(rows_file, tmp_path / "out", recipe)) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("train.py: one process sees 2 GPUs, this machine: start one process per")


@pytest.mark.parametrize(
    ("gpus", "variables", "device"),
    [
        (1, {}, "cuda"),
        (4, {}, "cpu"),
        (4, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, "cuda"),
        (4, {"RANK": "7", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, "cuda"),
    ],
)
def test_one_gpu_per_process_is_accepted(monkeypatch, gpus, variables, device):
    see_gpus(monkeypatch, gpus, **variables)
    distributed.check_gpus(distributed.current_process(), device)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"},
        {"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "3"},  # a launcher that gives no local size
    ],
)
def test_more_processes_than_gpus_are_refused(monkeypatch, variables):
    see_gpus(monkeypatch, 2, **variables)
    problem = "3 processes share 2 GPUs, this machine: start at most 2 here"
    with pytest.raises(TrainError, match=problem):
        distributed.check_gpus(distributed.current_process(), "cuda")


def test_a_single_process_agrees_with_itself():
    assert distributed.largest_value(15, processes=1) == 15
    assert distributed.largest_value(None, processes=1) is None
    assert distributed.gather({"a": 1}, processes=1) == [{"a": 1}]
