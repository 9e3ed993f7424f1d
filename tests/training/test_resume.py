"""Journeys: a killed run resumes and ends like an unbroken one, and errors keep the last checkpoint."""

import random
import signal
import sys
import time

import pytest
from checkpoints import Checkpoints
from small import read_metrics, read_weights, write_recipe
from training_run import arguments, finish, start, stop_at, write_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send"),
]
STEPS = 60


@pytest.fixture
def recipe(tmp_path):
    """A recipe with dropout, so that the random state matters too."""
    return write_recipe(tmp_path / "small.yaml", tiny_resid_pdrop=0.1)


@pytest.mark.slow
def test_a_run_killed_twice_ends_like_an_unbroken_one(rows_file, recipe, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(arguments(rows_file, unbroken, recipe))
    line = arguments(rows_file, broken, recipe, "--resume")
    steps = random.randrange(1, STEPS // 2), random.randrange(STEPS // 2 + 8, STEPS - 8)
    print("stopped at", steps)

    code, output = stop_at(line, steps[0], signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, output
    assert "--resume to continue" in output.splitlines()[-1] and "Traceback" not in output
    assert not (broken / "model").exists()
    code, output = stop_at(line, steps[1], signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert "resuming from" in finish(line)

    expected, weights = read_weights(unbroken), read_weights(broken)
    assert expected.keys() == weights.keys()
    assert all((expected[name] == weights[name]).all() for name in expected)
    expected_metrics, metrics = read_metrics(unbroken), read_metrics(broken)
    for name in ("steps", "tokens", "eval_loss", "base_eval_loss"):
        assert metrics[name] == expected_metrics[name]
    assert metrics["train_loss"] == pytest.approx(expected_metrics["train_loss"])
    assert metrics["resumed_from"] >= steps[1] - 7
    assert not (broken / "checkpoints").exists(), "the result is complete"


@pytest.mark.slow
def test_a_killed_run_of_preferences_ends_like_an_unbroken_one(tmp_path):
    from test_preference_trainer import PREFERENCES

    rows = write_rows(tmp_path / "preferences.jsonl", PREFERENCES)
    lora = {"r": 4, "alpha": 8, "target_modules": "all-linear"}
    recipe = write_recipe(tmp_path / "dpo.yaml", lora=lora, precompute_ref_log_probs=True)
    recipe.write_text(f"method: dpo\n{recipe.read_text()}")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(arguments(rows, unbroken, recipe))
    line = arguments(rows, broken, recipe, "--resume")
    code, output = stop_at(line, random.randrange(8, STEPS // 2), signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, output
    assert "--resume to continue" in output.splitlines()[-1]
    assert "resuming from" in finish(line)
    expected, weights = read_weights(unbroken), read_weights(broken)
    assert expected.keys() == weights.keys()
    assert all((expected[name] == weights[name]).all() for name in expected)
    expected_metrics, metrics = read_metrics(unbroken), read_metrics(broken)
    for name in ("steps", "eval_loss", "reward_margin", "reward_accuracy"):
        assert metrics[name] == expected_metrics[name]


def test_a_loss_that_is_not_a_number_stops_the_run_at_once(rows_file, tmp_path):
    settings = {"learning_rate": 1e30, "warmup_steps": 10, "save_steps": 1}
    absurd = write_recipe(tmp_path / "absurd.yaml", **settings)
    output = finish(arguments(rows_file, tmp_path / "out", absurd), code=1)
    last_line = output.splitlines()[-1]
    assert last_line.startswith("train.py: the loss or its gradient is not a number at step ")
    step = int(last_line.split("step ")[1].split(",")[0])
    assert f"(step {step - 1} is kept): lower trainer.learning_rate" in last_line
    checkpoint = Checkpoints(tmp_path / "out" / "checkpoints", {}).latest()
    assert checkpoint is not None and checkpoint.name == f"checkpoint-{step - 1}"
    from safetensors.torch import load_file

    weights = load_file(checkpoint / "model.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit exists on Linux only")
def test_a_full_disk_keeps_the_last_complete_checkpoint(rows_file, recipe, tmp_path):
    import resource

    checkpoints = Checkpoints(tmp_path / "out" / "checkpoints", {})
    with start(arguments(rows_file, tmp_path / "out", recipe, "--epochs", "5000")) as run:
        assert run.stderr is not None
        while checkpoints.latest() is None and run.poll() is None:
            time.sleep(0.01)
        # From now on the run cannot write longer files, as on a full disk.
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
        output = run.stderr.read()
        assert run.wait(timeout=60) == 1, output
    last_line = output.splitlines()[-1]
    assert last_line.startswith("train.py: cannot write the checkpoint of step ")
    assert "is kept): free some space, then run the same command with --resume" in last_line
    latest = checkpoints.latest()
    assert latest is not None
    assert f"(step {latest.name.removeprefix('checkpoint-')} is kept)" in last_line
