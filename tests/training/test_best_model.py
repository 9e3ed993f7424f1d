"""With load_best_model_at_end, every figure is that of the saved model."""

import json
import math

import pytest
from small import read_metrics, write_recipe
from training_run import CAPITALS, conversation, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")

# Wrong answers: at first the model learns their form, and then that they are wrong.
WRONG_ROWS = [
    conversation(f"What is the capital of {country}?", f"The capital of {country} is {capital}.")
    for country, capital in zip(CAPITALS, ("Oslo", "Bern", "Riga", "Baku"))
]
BEST = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 5, "save_steps": 5}


def saved_model_loss(folder, rows):
    """Return the mean loss of the answers' tokens under the saved model."""
    import templates
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = templates.training_template(tokenizer, "tiny")
    total = count = 0.0
    for row in rows:
        tokens, mask = zip(*templates.mask_tokens(tokenizer, row, template))
        labels = [token if is_trained else -100 for token, is_trained in zip(tokens, mask)]
        with torch.no_grad():
            loss = model(torch.tensor([tokens]), labels=torch.tensor([labels])).loss
        total, count = total + float(loss) * sum(mask), count + sum(mask)
    return total / count


@pytest.fixture(scope="module")
def best(train_cli, tmp_path_factory):
    """A finished run whose best model is not its last one, and the run's output."""
    folder = tmp_path_factory.mktemp("best")
    recipe = write_recipe(folder / "recipe.yaml", learning_rate=1e-2, samples=2, **BEST)
    rows = write_rows(folder / "wrong.jsonl", WRONG_ROWS)
    finished = train_cli(folder / "out", "--eval-file", str(rows), recipe=recipe)
    assert finished.returncode == 0, finished.stderr
    return folder / "out", finished.stderr


@pytest.mark.finding(
    22,
    "`load_best_model_at_end` with a best model that is not the last one",
    "metrics, card, console and MLflow describe the saved model",
)
def test_every_figure_is_that_of_the_saved_model(best):
    out, output = best
    loss = saved_model_loss(out / "model", WRONG_ROWS)
    metrics = read_metrics(out)
    assert metrics["eval_loss"] == pytest.approx(loss, abs=1e-4)
    assert metrics["perplexity"] == pytest.approx(math.exp(loss), rel=1e-3)
    assert f"eval loss {loss:.3f}" in output.splitlines()[-1]
    card = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert f"| {metrics['base_eval_loss']:.4f} | {loss:.4f} |" in card
    (tracked,) = out.glob("mlruns/*/*/metrics/eval_loss")
    assert float(tracked.read_text().splitlines()[-1].split()[1]) == pytest.approx(loss, abs=1e-4)


def test_the_step_of_the_saved_model_is_given(best):
    out, output = best
    metrics = read_metrics(out)
    step = metrics["saved_step"]
    assert 0 < step < metrics["steps"] and step % 5 == 0
    assert f"saved model: step {step} of {metrics['steps']}" in output.splitlines()[-1]
    card = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert f"saved model is that of step {step}, " in card


def test_the_sample_answers_end_with_those_of_the_saved_model(best):
    from samples import generate_answers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, _ = best
    lines = (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    last = {sample["question"]: sample["answer"] for sample in map(json.loads, lines)}
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    questions = [[{"role": "user", "content": question}] for question in last]
    assert generate_answers(model, tokenizer, questions) == list(last.values())


def test_without_the_best_checkpoint_the_last_model_is_saved_and_a_line_says_so(tmp_path, capsys):
    from test_trainer import make_trainer

    trainer = make_trainer(tmp_path)
    trainer.state.global_step, trainer.state.best_global_step = 20, 10
    assert trainer.find_saved_step() == 20
    assert "best" not in capsys.readouterr().err
    trainer.args.load_best_model_at_end = True
    assert trainer.find_saved_step() == 20
    line = f"the best checkpoint, of step 10, is missing in {tmp_path}: saving the model of step 20"
    assert line in capsys.readouterr().err
    trainer.state.best_model_checkpoint = str(tmp_path / "checkpoint-10")
    assert trainer.find_saved_step() == 10
    assert "best" not in capsys.readouterr().err


def test_a_best_checkpoint_without_weights_is_an_error(tmp_path):
    from inputs import TrainError
    from test_trainer import make_trainer

    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.state.best_model_checkpoint = str(tmp_path / "checkpoint-2")
    with pytest.raises(TrainError, match="the best checkpoint is not complete, .*checkpoint-2: "):
        trainer._load_best_model()
