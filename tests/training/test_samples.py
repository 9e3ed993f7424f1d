"""Sample answers: right for each question, kept, and without a trace in the training."""

import json

import pytest
from training_run import ROWS, conversation

from tiny_model import tiny_model_dir  # noqa: F401 - a fixture

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def loaded(tiny_model_dir):  # noqa: F811
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    return model, AutoTokenizer.from_pretrained(tiny_model_dir)


def train(loaded, folder, callbacks):
    """Four steps with dropout, which draws on the random state, and two evaluations."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = loaded
    for module in model.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.1
    config = SFTConfig(
        output_dir=str(folder), num_train_epochs=2, per_device_train_batch_size=6, max_length=64,
        eval_strategy="epoch", save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        bf16=False, gradient_checkpointing=True, learning_rate=1e-2,
    )  # fmt: skip
    rows = Dataset.from_list(ROWS)
    trainer = SFTTrainer(
        model, config, train_dataset=rows, eval_dataset=rows.select(range(3)),
        processing_class=tokenizer, callbacks=callbacks,
    )  # fmt: skip
    trainer.train()
    return {name: weight.clone() for name, weight in trainer.model.state_dict().items()}


def test_the_training_is_the_same_with_and_without(loaded, tiny_model_dir, tmp_path, capsys):  # noqa: F811
    import torch
    from samples import Samples
    from transformers import AutoModelForCausalLM

    again = AutoModelForCausalLM.from_pretrained(tiny_model_dir), loaded[1]
    without = train(loaded, tmp_path, [])
    samples = Samples(ROWS, 3, loaded[1], tmp_path / "samples.jsonl")
    found = train(again, tmp_path, [samples])
    assert all(torch.equal(found[name], without[name]) for name in without)
    kept = [json.loads(line) for line in (tmp_path / "samples.jsonl").open(encoding="utf-8")]
    assert kept == samples.kept and [row["epoch"] for row in kept] == [1.0] * 3 + [2.0] * 3
    # Not a terminal: none of the data is printed.
    assert "capital" not in "".join(capsys.readouterr())


def test_answers_in_a_batch_are_those_of_each_alone(loaded):
    import samples
    import torch

    model, tokenizer = loaded
    tokenizer.padding_side = "right"  # as some bases have it
    model.train()
    model.lm_head.eval()
    state = torch.get_rng_state()
    asked = [
        conversation(text, "…")["messages"][:1] for text in ("Hi", "What is the capital of France?")
    ]
    together = samples.answer(model, tokenizer, asked, max_new_tokens=12)
    assert together == [
        samples.answer(model, tokenizer, [one], max_new_tokens=12)[0] for one in asked
    ]
    assert together[0] != together[1]
    assert model.training and not model.lm_head.training
    assert torch.equal(torch.get_rng_state(), state)
    assert tokenizer.padding_side == "right"


def test_the_rows_asked_are_spread_over_the_file():
    from samples import spread

    rows = [{"row": n} for n in range(10)]
    assert [row["row"] for row in spread(rows, 3)] == [0, 4, 9]
    assert spread(rows, 0) == [] and spread(rows, 1) == rows[:1] and spread(rows[:2], 3) == rows[:2]


@pytest.mark.parametrize("count", [0, 2])
def test_no_samples_or_a_failure_of_them_is_no_failure(tmp_path, capsys, count):
    from samples import Samples
    from transformers import TrainerState

    samples = Samples(ROWS, count, None, tmp_path / "samples.jsonl")
    for _ in range(2):
        samples.on_evaluate(None, TrainerState(epoch=1.0), None, model=None)
    assert not (tmp_path / "samples.jsonl").exists()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (1 if count else 0) and all("training goes on" in line for line in said)
