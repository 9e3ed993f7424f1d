"""What the model sees in a batch: packed rows see only themselves, padding counts for nothing."""

from pathlib import Path

import pytest
from training_run import ROWS, TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")


def make_trainer(folder, **settings):
    from dataclasses import replace

    import models
    import templates
    import torch
    import train
    from checkpoints import Checkpoints
    from datasets import Dataset
    from distributed import ALONE
    from inputs import read_recipe
    from trainer import Trainer

    recipe = read_recipe(TINY_RECIPE)
    recipe = replace(recipe, trainer=recipe.trainer | {"eval_strategy": "no"} | settings)
    torch.manual_seed(0)
    model, tokenizer = models.make_tiny(recipe, ROWS, TINY_RECIPE)
    tokenizer.chat_template = templates.marked(tokenizer, "tiny")
    return Trainer(
        model=model,
        processing_class=tokenizer,
        args=train.make_config(recipe, "cpu", folder, Path("recipe")),
        train_dataset=Dataset.from_list(ROWS),
        checkpoints=Checkpoints(folder, {}),
        place=ALONE,
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
    assert len(starts) >= 3, "several documents in a row"
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        packed = model(**inputs).logits[0]
        leaky = model(input_ids=batch["input_ids"]).logits[0]
        for start, end in zip(starts, [*starts[1:], len(packed)]):
            alone = model(input_ids=batch["input_ids"][:, start:end]).logits[0]
            torch.testing.assert_close(packed[start:end], alone, rtol=1e-4, atol=1e-5)
    # The check can fail: as one document, the later ones come out otherwise.
    assert (leaky[starts[1] :] - packed[starts[1] :]).abs().max() > 0.01


def test_no_document_learns_the_next_ones_start(tmp_path):
    trainer = make_trainer(tmp_path, packing=True, packing_strategy="bfd", max_length=64)
    batch = next(iter(trainer.get_train_dataloader()))
    starts = batch["position_ids"] == 0
    assert (batch["labels"][starts] == -100).all()


def test_padding_is_not_learned_and_hides_no_end(tmp_path):
    trainer = make_trainer(tmp_path, per_device_train_batch_size=len(ROWS))
    tokenizer = trainer.processing_class
    end, pad = (tokenizer.convert_tokens_to_ids(t) for t in ("<|end|>", "<|endoftext|>"))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == pad, "what is easily confused"
    batch = next(iter(trainer.get_train_dataloader()))
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["labels"][padding] == -100).all()
    for labels in batch["labels"]:
        learned = labels[labels != -100].tolist()
        assert learned.count(end) == 1 and learned[-1] == pad


def test_padding_does_not_change_the_loss(tmp_path):
    import torch

    trainer = make_trainer(tmp_path, per_device_train_batch_size=len(ROWS))
    batch = next(iter(trainer.get_train_dataloader()))
    more = {"input_ids": 7, "attention_mask": 0, "labels": -100}
    wider = {
        name: torch.nn.functional.pad(value, (0, 5), value=more[name])
        for name, value in batch.items()
        if name in more
    }
    model = trainer.model.eval()
    with torch.no_grad():
        losses = [model(**{k: each[k] for k in more}).loss for each in (batch, wider)]
    torch.testing.assert_close(*losses)


def test_the_loss_is_on_the_answer_and_its_end_only(tmp_path):
    trainer = make_trainer(tmp_path)
    learned = set()
    for batch in trainer.get_train_dataloader():
        for labels in batch["labels"]:
            learned.add(trainer.processing_class.decode(labels[labels != -100]))
    end = "<|end|>\n<|endoftext|>"
    assert learned == {row["messages"][1]["content"] + end for row in ROWS}
