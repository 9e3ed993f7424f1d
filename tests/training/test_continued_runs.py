"""Runs that start from an earlier result: preferences on its model, and training an adapter further."""

import json

import pytest
from small import read_metrics
from training_run import CAPITALS, QUESTIONS, write_rows

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

RECIPE = """
model: some/base
lora: {r: 8, alpha: 16}
samples: 1
trainer: {num_train_epochs: 4, per_device_train_batch_size: 4, learning_rate: 2.0e-3, max_length: 96,
  gradient_checkpointing: false, eval_strategy: steps, eval_steps: 4, save_steps: 100,
  load_best_model_at_end: true}
"""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """A function that returns the file of a recipe with further sections."""
    folder = tmp_path_factory.mktemp("recipes")

    def write(name, sections=""):
        path = folder / f"{name}.yaml"
        path.write_text(RECIPE + sections, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def preferred(train_cli, trained, recipes, tmp_path_factory):
    """A run with preferences that writes an adapter only, and its output."""
    folder = tmp_path_factory.mktemp("preferred")
    rows = [
        {
            "prompt": question.format(country),
            "chosen": f"{capital}.",
            "rejected": f"The capital of {country} is {capital}.",
        }
        for country, capital in CAPITALS.items()
        for question in QUESTIONS
    ]
    file = str(write_rows(folder / "rows.jsonl", rows))
    words = ["--from", str(trained), "--train-file", file, "--eval-file", file, "--merge", "no"]
    finished = train_cli(folder / "out", *words, recipe=recipes("dpo", "method: dpo\n"))
    assert finished.returncode == 0, finished.stderr
    return folder / "out", finished.stderr


def test_preferences_change_the_model_of_an_earlier_run(preferred):
    out, output = preferred
    metrics = read_metrics(out)
    assert metrics["method"] == "dpo" and metrics["perplexity"] is None
    assert metrics["base_eval_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert metrics["eval_loss"] < 0.6 and metrics["reward_margin"] > 0.2
    assert metrics["reward_accuracy"] == 1
    last = output.splitlines()[-1]
    assert f"reward margin {metrics['reward_margin']:.2f}, chosen answer preferred in 100%" in last


def test_without_merging_the_result_is_the_adapter(preferred):
    out, _ = preferred
    names = {path.name for path in out.iterdir()}
    assert "adapter" in names and not names & {"model", "mlflow"}
    card = (out / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "preferences" in card and "PeftModel.from_pretrained" in card
    assert "| reward margin | 0 |" in card


def test_an_adapter_is_trained_further_on_its_base_only(
    preferred, train_cli, trained, recipes, tmp_path
):
    out, _ = preferred
    recipe = recipes("sft")
    words = ["--epochs", "1", "--from", str(out), "--model", str(trained / "model")]
    finished = train_cli(tmp_path / "out", *words, recipe=recipe)
    assert finished.returncode == 0, finished.stderr
    origins = [
        json.loads((folder / "adapter" / "phi3-adapter.json").read_text())
        for folder in (out, tmp_path / "out")
    ]
    assert origins[0] == origins[1]
    words[-1] = str(trained / "base")
    refused = train_cli(tmp_path / "refused", *words, recipe=recipe)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith("train.py: the adapter is of another base than ")
