"""The real command line on a small file: what it leaves behind, and what it never leaves."""

import json
from pathlib import Path

import pytest
from training_run import QUESTIONS, ROWS, TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")


def answer(folder: Path, question: str) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    turns = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
    tokens = model.generate(**prompt, max_new_tokens=40)[0, prompt["input_ids"].shape[1] :]
    return tokenizer.decode(tokens, skip_special_tokens=True)


def test_the_result_is_complete_and_nothing_else(trained):
    parts = {"base", "model", "mlflow", "metrics.json", "loss.png", "samples.jsonl", "mlruns"}
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


def test_metrics_say_what_was_done(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert (metrics["steps"], metrics["seed"], metrics["recipe"]) == (60, 0, "tiny-cpu")
    assert metrics["eval_loss"] < 0.5 < metrics["train_loss"]
    assert metrics["tokens"] > 60 * len(ROWS) * 10
    assert metrics["seconds"] >= metrics["train_seconds"] > 0
    assert metrics["versions"].keys() >= {"torch", "transformers", "trl", "mlflow-skinny"}


def test_progress_is_plain_lines_without_data(trained):
    said = (trained.parent / "said.txt").read_text()
    assert "\r" not in said
    lines = said.splitlines()
    assert 10 <= len([line for line in lines if "steps/s" in line]) <= 11
    assert all(line.startswith(("training ", "train.py: ")) for line in lines)
    assert "tokens/s" in said and "loss" in said and "s left" in said
    assert "France" not in said


def test_the_model_answers_and_the_base_does_not(trained):
    for row in ROWS:
        question, expected = (message["content"] for message in row["messages"])
        assert answer(trained / "model", question) == expected
    assert "Paris" not in answer(trained / "base", QUESTIONS[0].format("France"))


def test_the_mlflow_model_answers_and_honours_its_parameters(trained):
    import mlflow

    model = mlflow.pyfunc.load_model(str(trained / "mlflow"))
    question = [QUESTIONS[0].format("France")]
    assert model.predict(question) == ["The capital of France is Paris."]
    short = model.predict(question, params={"max_new_tokens": 2})[0]
    assert 0 < len(short) < len("The capital of France")
    assert "<|user|>" in model.predict(question, params={"return_full_text": True})[0]


def test_the_mlflow_model_brings_what_azure_needs(trained):
    text = (trained / "mlflow" / "MLmodel").read_text()
    assert '"type": "string"' in text and "max_new_tokens" in text
    assert str(trained.parent) not in text
    required = (trained / "mlflow" / "requirements.txt").read_text()
    assert "azureml-ai-monitoring" in required and "mlflow==" in required and "+cpu" not in required


def test_lora_is_merged_and_the_same_seed_gives_the_same_loss(trained, train_cli, tmp_path):
    recipe = tmp_path / "lora.yaml"
    recipe.write_text(
        "model: some/hub-id\nlora: {r: 4, alpha: 8}\ntrainer: {packing: true, packing_strategy: bfd,"
        " max_length: 64, learning_rate: 1.0e-2, gradient_checkpointing: true}\n"
    )
    losses = []
    for _ in range(2):
        base = str(trained / "base")
        done = train_cli(tmp_path / "out", "--model", base, "--epochs", "2", recipe=recipe)
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        losses.append((metrics["train_loss"], metrics["eval_loss"]))
    assert losses[0] == losses[1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model",
        "mlflow",
        "metrics.json",
        "loss.png",
        "samples.jsonl",
        "mlruns",
    }
    assert not list((tmp_path / "out").rglob("adapter_*"))
    assert b"lora" not in (tmp_path / "out" / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("path", sorted(TINY_RECIPE.parent.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_shipped_recipes_settings_are_trls(tmp_path, path):
    import train
    from inputs import read_recipe

    config = train.make_config(read_recipe(path), "cpu", tmp_path, path)
    assert config.assistant_only_loss and not config.bf16 and config.use_cpu


def test_a_model_that_cannot_be_loaded_is_named(train_cli, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    done = train_cli(tmp_path / "out", "--model", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"train.py: cannot load the model, {tmp_path}: ")
    assert len(done.stderr.splitlines()) == 1
    # The record of a run that failed, and no half of a result.
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"mlruns"}


def test_a_setting_that_trl_does_not_know_is_named(tmp_path):
    import train
    from inputs import read_recipe

    path = tmp_path / "recipe.yaml"
    path.write_text("model: a/b\ntrainer: {learning_rat: 1.0e-3}\n")
    with pytest.raises(train.TrainError, match="learning_rat"):
        train.make_config(read_recipe(path), "cpu", tmp_path, path)


def test_a_new_result_takes_the_earlier_ones_place(tmp_path):
    import outputs

    (tmp_path / "base").mkdir()
    (tmp_path / "metrics.json").write_text("earlier")
    with outputs.partial_folder(tmp_path) as partial:
        (partial / "model").mkdir()
        (partial / "metrics.json").write_text("new")
        outputs.publish(partial, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "metrics.json"}
    assert (tmp_path / "metrics.json").read_text() == "new"
