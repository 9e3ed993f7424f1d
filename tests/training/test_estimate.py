"""The estimate of a training: its counts, and that the memory is that of the training."""

import json
import subprocess

import pytest
from small import write_recipe
from training_run import ROWS, command, environment, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def estimator(rows_file, tmp_path):
    """An estimator of a small model, and the recipe."""
    from estimate import Estimator
    from options import parse
    from run import read_inputs
    from training_run import arguments

    recipe = write_recipe(tmp_path / "small.yaml")
    options = parse(arguments(rows_file, tmp_path / "out", recipe), "")
    inputs = read_inputs(options)
    return Estimator(inputs, options, framework=10**9), inputs.recipe


def test_the_parts_of_the_memory(estimator):
    import machines

    estimate, recipe = estimator[0].estimate, estimator[1]
    result = estimate(recipe, machines.Machine("a", "cpu", "", 8 * 10**9))
    memory = result.memory
    assert memory.gradients == 4 * result.trained_parameters == 4 * result.parameters
    assert memory.optimizer == 2 * memory.gradients
    assert memory.weights >= memory.gradients
    assert result.fits and result.steps == 20 * 3
    parts = memory.framework + memory.weights + memory.optimizer + memory.activations
    assert memory.peak >= parts and result.seconds


def test_adapters_need_less(estimator):
    from dataclasses import replace

    import machines

    estimate, recipe = estimator[0].estimate, estimator[1]
    machine = machines.Machine("a", "cpu", "", 8 * 10**9)
    adapters = estimate(replace(recipe, lora={"r": 2, "alpha": 4}), machine)
    assert adapters.trained_parameters < adapters.parameters
    assert adapters.memory.optimizer < estimate(recipe, machine).memory.optimizer


def test_recomputed_activations_are_not_kept(estimator):
    from dataclasses import replace

    import machines

    estimate, recipe = estimator[0].estimate, estimator[1]
    machine = machines.find_machine("Standard_NC24ads_A100_v4")
    plain = estimate(recipe, machine)
    trainer = recipe.trainer | {"gradient_checkpointing": True}
    recomputed = estimate(replace(recipe, trainer=trainer), machine)
    assert recomputed.memory.activations < plain.memory.activations
    assert recomputed.flops > plain.flops


def test_the_reference_of_preferences_is_counted(tmp_path):
    from dataclasses import replace

    import machines
    from estimate import Estimator
    from options import parse
    from run import read_inputs
    from test_preference_trainer import PREFERENCES
    from training_run import arguments

    rows = write_rows(tmp_path / "preferences.jsonl", PREFERENCES)
    lora = {"r": 4, "alpha": 8, "target_modules": "all-linear"}
    recipe = write_recipe(tmp_path / "dpo.yaml", lora=lora)
    recipe.write_text(f"method: dpo\n{recipe.read_text()}")
    options = parse(arguments(rows, tmp_path / "out", recipe), "")
    inputs = read_inputs(options)
    estimator = Estimator(inputs, options, framework=10**9)
    machine = machines.Machine("a", "cpu", "", 8 * 10**9)

    def estimate(**settings):
        trainer = inputs.recipe.trainer | settings
        return estimator.estimate(replace(inputs.recipe, trainer=trainer), machine)

    each_step, before = estimate(), estimate(precompute_ref_log_probs=True)
    # A forward pass for each of twenty epochs, against one; a step of adapters has about two more.
    assert 1.2 < each_step.flops / before.flops < 1.5
    assert each_step.memory.peak >= before.memory.peak


def test_what_would_fit_instead(estimator):
    import machines

    estimator, recipe = estimator
    needed = estimator.estimate(recipe, machines.find_machine("T4")).memory.peak
    small = machines.Machine("small", "cuda", "T4", needed - 10**6)
    changes = [change for change, estimate, _ in estimator.alternatives(recipe, small)]
    assert changes[0] == "per_device_train_batch_size: 1, gradient_accumulation_steps: 4"
    assert "lora" in changes[-2] and changes[-1].startswith("--machine Standard_")


@pytest.mark.parametrize(
    ("name", "bytes_per_weight"),
    [("adamw_torch_fused", 8), ("paged_adamw_8bit", 2), ("sgd", 0), ("lion_8bit", 1)],
)
def test_the_states_of_an_optimizer(name, bytes_per_weight):
    from estimate import optimizer_bytes

    assert optimizer_bytes(name) == bytes_per_weight


def test_freed_tensors_are_not_counted():
    import torch
    from live_memory import LiveMemory

    live = LiveMemory()
    with live:
        first = torch.ones(1000)
        view = first.view(10, 100)
        del first
        assert live.bytes == 4000
        product = view @ view.t()
        assert (live.bytes, live.flops) == (4400, 2 * 10 * 10 * 100)
        del view, product
    assert (live.bytes, live.peak) == (0, 4400)


def test_a_machine_that_is_not_known_is_refused():
    import machines
    from inputs import TrainError

    assert machines.find_machine("standard_e16s_v3").memory == 128 * machines.GIB
    with pytest.raises(TrainError, match="the memory of the machine is not known, Standard_X1"):
        machines.find_machine("Standard_X1")


RECIPES = {
    # As smollm2-cpu, with fewer steps.
    "smollm2-cpu": {
        "trained_layers": 20,
        "rows_per_sequence": 4,
        "trainer": {"per_device_train_batch_size": 16},
    },
    "adapters": {
        "lora": {"r": 16, "alpha": 32, "target_modules": "all-linear"},
        "trainer": {"per_device_train_batch_size": 8},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_memory_is_that_of_the_training(name, smollm2_folder, tmp_path):
    import yaml

    system = {
        "role": "system",
        "content": "You answer questions about capitals in one sentence. " * 3,
    }
    rows = [{"messages": [system, *row["messages"]]} for row in ROWS * 4]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    recipe = {
        "model": str(smollm2_folder),
        "samples": 0,
        "attention": "sdpa",
        **RECIPES[name],
        "trainer": {
            "max_steps": 3,
            "max_length": 512,
            "eval_strategy": "no",
            "gradient_checkpointing": False,
            **RECIPES[name]["trainer"],
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    line = command(file, tmp_path / "out", recipe=path)
    settings = {"capture_output": True, "text": True, "timeout": 600, "env": environment()}
    done = subprocess.run([*line, "--estimate"], check=False, **settings)
    assert done.returncode == 0, done.stderr
    estimated = json.loads(done.stdout)["memory_gb"]["peak"]
    done = subprocess.run(line, check=False, **settings)
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text())["peak_memory_gb"]
    assert estimated == pytest.approx(measured, rel=0.15)


def test_train_py_prints_it(rows_file, tmp_path):
    recipe = write_recipe(tmp_path / "small.yaml")
    line = command(rows_file, tmp_path / "out", "--estimate", "--machine", "H100", recipe=recipe)
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stderr
    estimate = json.loads(done.stdout)
    assert estimate["machine"] == {"name": "H100", "card": "H100", "cards": 1, "memory_gb": 85.899}
    assert estimate["fits"] and estimate["alternatives"] == [] and estimate["flops"] > 0
    assert not (tmp_path / "out").exists()
