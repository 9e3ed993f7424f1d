"""The real command line on a small file: the files that it writes, and those that it does not."""

import json
from pathlib import Path

import pytest
from training_run import QUESTIONS, ROWS

pytestmark = pytest.mark.filterwarnings("ignore")


def answer(folder: Path, question: str) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt"
    )
    tokens = model.generate(**prompt, max_new_tokens=40)[0, prompt["input_ids"].shape[1] :]
    return tokenizer.decode(tokens, skip_special_tokens=True)


def test_the_output_folder_has_the_complete_result_and_nothing_else(trained):
    parts = {"base", "model", "mlflow", "metrics.json", "loss.png", "samples.jsonl", "mlruns"}
    parts.add(".phi3-made")
    assert {path.name for path in trained.iterdir()} == parts
    for part in ("base", "model"):
        names = {path.name for path in (trained / part).iterdir()}
        assert names >= {
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "chat_template.jinja",
        }
        config = json.loads((trained / part / "generation_config.json").read_text())
        assert len(config["eos_token_id"]) == 2


def test_the_metrics_describe_the_run(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert (metrics["steps"], metrics["seed"], metrics["recipe"]) == (60, 0, "tiny-cpu")
    assert metrics["eval_loss"] < 0.5 < metrics["train_loss"]
    assert metrics["tokens"] > 60 * len(ROWS) * 10
    assert metrics["seconds"] >= metrics["train_seconds"] > 0 and metrics["tokens_per_second"] > 0
    assert metrics["versions"].keys() >= {"torch", "transformers", "trl", "mlflow-skinny"}


def test_the_progress_is_plain_lines_without_data(trained):
    output = (trained.parent / "output.txt").read_text()
    assert "\r" not in output
    lines = output.splitlines()
    assert 10 <= len([line for line in lines if "steps/s" in line]) <= 11
    assert all(line.startswith(("training ", "train.py: ")) for line in lines)
    assert "tokens/s" in output and "loss" in output and "s left" in output
    assert "France" not in output


def test_the_model_answers_and_the_base_does_not(trained):
    for row in ROWS:
        question, expected = (message["content"] for message in row["messages"])
        assert answer(trained / "model", question) == expected
    assert "Paris" not in answer(trained / "base", QUESTIONS[0].format("France"))


def test_the_mlflow_model_answers_and_uses_its_parameters(trained):
    import mlflow

    model = mlflow.pyfunc.load_model(str(trained / "mlflow"))
    question = [QUESTIONS[0].format("France")]
    assert model.predict(question) == ["The capital of France is Paris."]
    short = model.predict(question, params={"max_new_tokens": 2})[0]
    assert 0 < len(short) < len("The capital of France")
    assert "<|user|>" in model.predict(question, params={"return_full_text": True})[0]


def test_the_mlflow_model_has_the_requirements_of_azure(trained):
    text = (trained / "mlflow" / "MLmodel").read_text()
    assert '"type": "string"' in text and "max_new_tokens" in text
    assert str(trained.parent) not in text
    required = (trained / "mlflow" / "requirements.txt").read_text()
    assert "azureml-ai-monitoring" in required and "mlflow==" in required and "+cpu" not in required


@pytest.mark.slow
def test_lora_is_merged_and_the_same_seed_gives_the_same_loss(trained, train_cli, tmp_path):
    recipe = tmp_path / "lora.yaml"
    recipe.write_text(
        "model: some/hub-id\nlora: {r: 4, alpha: 8}\nsave_dtype: bfloat16\n"
        "trainer: {packing: true, packing_strategy: bfd, max_length: 64, learning_rate: 1.0e-2,"
        f" gradient_checkpointing: true, per_device_eval_batch_size: {len(ROWS)}}}\n"
    )
    losses = []
    for _ in range(2):
        base = str(trained / "base")
        finished = train_cli(tmp_path / "out", "--model", base, "--epochs", "2", recipe=recipe)
        assert finished.returncode == 0, finished.stderr
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        losses.append([metrics[f"{name}_loss"] for name in ("train", "eval", "saved_eval")])
    assert losses[0] == losses[1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model",
        "adapter",
        "mlflow",
        "metrics.json",
        "loss.png",
        "samples.jsonl",
        "mlruns",
        ".phi3-made",
    }
    adapter_files = {path.parent.name for path in (tmp_path / "out").rglob("adapter_*")}
    assert adapter_files == {"adapter"}
    assert b"lora" not in (tmp_path / "out" / "model" / "model.safetensors").read_bytes()
    check_loss_of_saved_model(metrics, tmp_path / "out" / "model")


def check_loss_of_saved_model(metrics, folder):
    """Check that the metrics have the loss of the merged weights, rounded to bf16."""
    import general
    import templates
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = templates.training_template(tokenizer, "")
    loss = general.mean_loss(model.float(), tokenizer, template, ROWS)
    assert metrics["measured_weights"] == "unrounded"
    assert metrics["saved_eval_loss"] == pytest.approx(loss, abs=1e-5)
    assert metrics["eval_loss"] == pytest.approx(loss, rel=0.02)
    assert metrics["eval_loss"] != pytest.approx(loss, abs=1e-5)


def test_a_model_that_cannot_be_loaded_is_reported(train_cli, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    finished = train_cli(tmp_path / "out", "--model", str(tmp_path))
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"train.py: cannot load the model, {tmp_path}: ")
    assert len(finished.stderr.splitlines()) == 1
    # Only the MLflow record of the failed run remains, and no part of a result.
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"mlruns"}
