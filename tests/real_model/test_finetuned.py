"""LoRA adapters on the real model: a killed run resumes, and the MLflow model answers like score.py."""

from __future__ import annotations

import signal

import pytest
import yaml
from training_run import ROWS, arguments, finish, stop_at, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TOKENS = 24
QUESTIONS = [
    "What is the capital of France?",
    "Tell me the capital of Österreich.",
    "Who wrote Romeo and Juliet?",
    "What is 12 plus 30? Use {braces}.",
    "Write a haiku about the sea.",
]


@pytest.fixture(scope="module")
def recipe(smollm2_folder, tmp_path_factory):
    """Few and short steps, with dropout, so that the random state matters too."""
    layers = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    trainer = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "max_length": 64,
        "save_steps": 3,
        "logging_steps": 1,
        "eval_strategy": "no",
        "gradient_checkpointing": False,
    }
    file = tmp_path_factory.mktemp("recipe") / "few-steps.yaml"
    lora = {"r": 4, "alpha": 8, "dropout": 0.1, "target_modules": layers}
    content = {"model": str(smollm2_folder), "seed": 3, "samples": 0, "lora": lora}
    file.write_text(yaml.safe_dump({**content, "trainer": trainer}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def unbroken(rows_file, recipe, tmp_path_factory):
    """The output folder of a run without a break."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    finish(arguments(rows_file, out, recipe))
    return out


def test_a_killed_run_resumes_and_ends_with_the_weights_of_an_unbroken_one(
    unbroken, rows_file, recipe, smollm2_folder, tmp_path
):
    from safetensors.torch import load_file

    broken = tmp_path / "out"
    line = arguments(rows_file, broken, recipe, "--resume")
    code, output = stop_at(line, 5, signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    assert (broken / "checkpoints" / "checkpoint-3").is_dir()
    assert "resuming from" in finish(line)

    base, expected, weights = (
        load_file(folder / "model.safetensors")
        for folder in (smollm2_folder, unbroken / "model", broken / "model")
    )
    assert expected.keys() == weights.keys()
    assert all((expected[name] == weights[name]).all() for name in expected)
    assert any((expected[name] != base[name]).any() for name in expected), "nothing was trained"


def test_the_mlflow_model_answers_like_score_py(unbroken, monkeypatch):
    import mlflow
    import score

    served = mlflow.pyfunc.load_model(str(unbroken / "mlflow"))
    params = {"max_new_tokens": TOKENS, "do_sample": False}
    mlflow_answers = served.predict(QUESTIONS, params=params)
    del served
    monkeypatch.setenv("PHI3_ENGINE", "transformers")  # needs no export of its own
    scorer = score.load(unbroken / "model")
    answers = scorer.answer({"input_data": QUESTIONS, "params": params})
    scorer.close()
    assert mlflow_answers == answers
    assert "Paris" in answers[0]
