"""The general chats: loss and answers before and after, without an effect on the training."""

import json

import pytest
import torch
from inputs import TrainError
from small import read_metrics, read_weights, write_recipe
from training_run import ROWS, conversation, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")

CHATS = [
    conversation("Say hello.", "Hello."),
    conversation("What is two plus two, please?", "Four."),
]


@pytest.fixture(scope="module")
def runs(train_cli, tmp_path_factory):
    """Output folders of the same training with and without general chats."""
    folder = tmp_path_factory.mktemp("general")
    recipe = write_recipe(folder / "small.yaml", samples=1)
    chats = write_rows(folder / "chats.jsonl", CHATS)
    outs = []
    for name, extra in (("with", ["--general-file", str(chats)]), ("without", [])):
        finished = train_cli(folder / name, *extra, recipe=recipe)
        assert finished.returncode == 0, finished.stderr
        outs.append(folder / name)
    return outs


def test_both_answers_to_each_chat_are_written(runs):
    lines = (runs[0] / "general.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    assert [(pair["question"], pair["reference"]) for pair in pairs] == [
        (chat["messages"][0]["content"], chat["messages"][1]["content"]) for chat in CHATS
    ]
    assert all(pair["base_answer"] != pair["tuned_answer"] for pair in pairs)
    assert not (runs[1] / "general.jsonl").exists()


def test_the_metrics_and_the_card_have_both_losses(runs):
    metrics, other = map(read_metrics, runs)
    assert metrics["general_rows"] == 2 and other["general_rows"] == 0
    assert metrics["general_loss"] != metrics["base_general_loss"] > 1
    assert other["general_loss"] is other["base_general_loss"] is None
    card = (runs[0] / "model" / "README.md").read_text(encoding="utf-8")
    losses = f"{metrics['base_general_loss']:.4f} | {metrics['general_loss']:.4f}"
    assert f"| loss on 2 general chats | {losses} |" in card
    assert "### What it still can" in card and "| Say hello. | Hello. |" in card
    assert "forgotten knowledge" not in card
    assert "forgotten knowledge" in (runs[1] / "model" / "README.md").read_text(encoding="utf-8")


def test_the_training_is_the_same_with_and_without_general_chats(runs):
    first, second = map(read_weights, runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_is_the_mean_over_the_answers_tokens(tmp_path):
    import general
    import templates
    from test_trainer import make_trainer

    trainer = make_trainer(tmp_path, rows=ROWS)
    model, tokenizer = trainer.model, trainer.processing_class
    template = templates.training_template(tokenizer, "tiny")
    total, count = 0.0, 0
    for row in [*ROWS, *CHATS]:
        tokens, is_answer = zip(*templates.mask_tokens(tokenizer, row, template))
        labels = [token if used else -100 for token, used in zip(tokens, is_answer)]
        with torch.no_grad():
            loss = model.eval()(torch.tensor([tokens]), labels=torch.tensor([labels])).loss
        total, count = total + loss.item() * sum(is_answer), count + sum(is_answer)
    model.train()
    mean = general.mean_loss(model, tokenizer, template, [*ROWS, *CHATS])
    assert mean == pytest.approx(total / count, rel=1e-5)
    assert model.training


def test_a_sharded_model_is_not_asked(rows_file, tmp_path, monkeypatch):
    import run
    from options import parse
    from training_run import arguments

    recipe = write_recipe(tmp_path / "small.yaml", fsdp={})
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    line = arguments(rows_file, tmp_path / "out", recipe, "--general-file", str(rows_file))
    with pytest.raises(TrainError, match="a sharded model cannot be asked, --general-file: "):
        run.prepare(parse(line, ""))
