"""The trainer: packed rows are isolated, padding is ignored, and checkpoints are marked."""

import math
import signal

import pytest
from training_run import ROWS, TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")


def make_trainer(
    folder,
    rows=ROWS,
    max_cut_share=0.1,
    template=None,
    eval_rows=None,
    rows_per_sequence=1,
    **settings,
):
    """Make a trainer for the tiny model; `settings` go into the recipe's `trainer` section."""
    from dataclasses import replace

    import models
    import sft_config
    import templates
    import torch
    from checkpoints import Checkpoints
    from datasets import Dataset
    from inputs import read_recipe
    from trainer import Trainer

    recipe = read_recipe(TINY_RECIPE)
    recipe = replace(recipe, trainer=recipe.trainer | {"eval_strategy": "no"} | settings)
    torch.manual_seed(0)
    model, tokenizer = models.make_tiny(recipe, ROWS, TINY_RECIPE)
    tokenizer.chat_template = template or templates.training_template(tokenizer, "tiny")
    return Trainer(
        model=model,
        processing_class=tokenizer,
        args=sft_config.make_config(recipe, "cpu", folder, TINY_RECIPE),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=eval_rows,
        checkpoints=Checkpoints(folder, {}),
        max_cut_share=max_cut_share,
        rows_per_sequence=rows_per_sequence,
    )


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_documents_do_not_see_each_other(tmp_path, attention):
    import torch

    settings = {"packing": True, "packing_strategy": "bfd", "max_length": 64}
    trainer = make_trainer(tmp_path, per_device_train_batch_size=2, **settings)
    model = trainer.model.eval()
    model.set_attn_implementation(attention)
    batch = next(iter(trainer.get_train_dataloader()))
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    assert len(starts) >= 3, "a row has several documents"
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        packed = model(**inputs).logits[0]
        leaky = model(input_ids=batch["input_ids"]).logits[0]
        for start, end in zip(starts, [*starts[1:], len(packed)]):
            alone = model(input_ids=batch["input_ids"][:, start:end]).logits[0]
            torch.testing.assert_close(packed[start:end], alone, rtol=1e-4, atol=1e-5)
    # This comparison can fail: in one document, the later parts have other logits.
    assert (leaky[starts[1] :] - packed[starts[1] :]).abs().max() > 0.01


def test_no_document_is_trained_to_predict_the_next_one(tmp_path):
    trainer = make_trainer(tmp_path, packing=True, packing_strategy="bfd", max_length=64)
    batch = next(iter(trainer.get_train_dataloader()))
    starts = batch["position_ids"] == 0
    assert (batch["labels"][starts] == -100).all()


def test_padding_is_not_trained_on_but_every_end_of_text_is(tmp_path):
    trainer = make_trainer(tmp_path, per_device_train_batch_size=len(ROWS))
    tokenizer = trainer.processing_class
    end, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<|end|>", "<|endoftext|>"))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == pad, (
        "padding and end of text are the same token"
    )
    batch = next(iter(trainer.get_train_dataloader()))
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["labels"][padding] == -100).all()
    for labels in batch["labels"]:
        trained = labels[labels != -100].tolist()
        assert trained.count(end) == 1 and trained[-1] == pad


def test_padding_does_not_change_the_loss(tmp_path):
    import torch

    trainer = make_trainer(tmp_path, per_device_train_batch_size=len(ROWS))
    batch = next(iter(trainer.get_train_dataloader()))
    fill = {"input_ids": 7, "attention_mask": 0, "labels": -100}
    wider = {
        name: torch.nn.functional.pad(value, (0, 5), value=fill[name])
        for name, value in batch.items()
        if name in fill
    }
    model = trainer.model.eval()
    with torch.no_grad():
        losses = [model(**{name: inputs[name] for name in fill}).loss for inputs in (batch, wider)]
    torch.testing.assert_close(*losses)


def test_the_loss_is_on_the_answer_and_its_end_only(tmp_path):
    trainer = make_trainer(tmp_path)
    trained = set()
    for batch in trainer.get_train_dataloader():
        for labels in batch["labels"]:
            trained.add(trainer.processing_class.decode(labels[labels != -100]))
    end = "<|end|>\n<|endoftext|>"
    assert trained == {row["messages"][1]["content"] + end for row in ROWS}


def test_every_checkpoint_is_marked_as_complete_and_has_no_model_card(tmp_path):
    from checkpoints import MARKER

    trainer = make_trainer(tmp_path, max_steps=3, save_steps=1)
    trainer.train()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint-2", "checkpoint-3"}, "the last two are kept"
    assert all((tmp_path / name / MARKER).is_file() for name in names)
    assert not list(tmp_path.rglob("README.md"))


def test_a_signal_ends_the_training_after_a_checkpoint_of_the_step(tmp_path, monkeypatch):
    import stopping

    trainer = make_trainer(tmp_path, max_steps=3, save_steps=100)
    monkeypatch.setattr(
        stopping,
        "pending_signal",
        lambda: signal.SIGTERM if trainer.state.global_step == 2 else None,
    )
    with pytest.raises(stopping.Stopped) as caught:
        trainer.train()
    assert caught.value.number == signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    # The loss since the last log entry is in the log, and so in the checkpoint.
    assert trainer.state.log_history[-1]["step"] == 2


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_is_an_error(tmp_path, loss):
    from inputs import TrainError

    trainer = make_trainer(tmp_path)
    trainer.log({"loss": 1.0})
    problem = "the loss or its gradient is not a number at step 0, .*no checkpoint yet"
    with pytest.raises(TrainError, match=problem):
        trainer.log({"loss": loss})


def test_a_checkpoint_that_cannot_be_written_is_removed_and_reported(tmp_path, monkeypatch):
    from inputs import TrainError
    from trl import SFTTrainer

    trainer = make_trainer(tmp_path)

    def fill_disk(self, model, trial):
        (tmp_path / "checkpoint-0" / "model.safetensors").touch()
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(SFTTrainer, "_save_checkpoint", fill_disk)
    with pytest.raises(TrainError, match="cannot write the checkpoint of step 0 .the disk is full"):
        trainer._save_checkpoint(trainer.model, None)
    assert not list(tmp_path.iterdir())


def test_other_errors_while_writing_a_checkpoint_are_raised_unchanged(tmp_path, monkeypatch):
    from trl import SFTTrainer

    def fail(self, model, trial):
        raise RuntimeError("a bug")

    monkeypatch.setattr(SFTTrainer, "_save_checkpoint", fail)
    trainer = make_trainer(tmp_path)
    with pytest.raises(RuntimeError, match="a bug"):
        trainer._save_checkpoint(trainer.model, None)
