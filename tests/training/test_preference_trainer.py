"""The trainer for preferences: its loss, its reference and its counts."""

import math

import pytest
from training_run import ROWS, TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")


def preference(row):
    """Return a row's answer as the chosen one, and its first word as the rejected one."""
    prompt, answer = row["messages"][:-1], row["messages"][-1]
    rejected = {**answer, "content": answer["content"].split()[0]}
    return {"prompt": prompt, "chosen": [answer], "rejected": [rejected]}


PREFERENCES = [preference(row) for row in ROWS]


def make_trainer(folder, *, adapter=None, max_cut_share=0.1, **settings):
    """Make a trainer of a tiny model with adapters; `settings` go into the `trainer` section."""
    import adapters
    import models
    import sft_config
    import torch
    from checkpoints import Checkpoints
    from datasets import Dataset
    from inputs import Recipe, read_recipe
    from preference_trainer import PreferenceTrainer

    trainer = {"eval_strategy": "no", "max_steps": 6, "learning_rate": 1e-2, "logging_steps": 1}
    trainer |= {"gradient_checkpointing": False, "per_device_train_batch_size": 4}
    lora = {"r": 4, "alpha": 8}
    recipe = Recipe("dpo", "base", method="dpo", lora=lora, trainer=trainer | settings)
    torch.manual_seed(0)
    model, tokenizer = models.make_tiny(read_recipe(TINY_RECIPE), ROWS, TINY_RECIPE)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    return PreferenceTrainer(
        model=model,
        processing_class=tokenizer,
        args=sft_config.make_config(recipe, "cpu", folder, TINY_RECIPE),
        train_dataset=Dataset.from_list(PREFERENCES),
        eval_dataset=Dataset.from_list(PREFERENCES),
        peft_config=None if adapter else adapters.make_lora(recipe),
        checkpoints=Checkpoints(folder, {}),
        max_cut_share=max_cut_share,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trainer after its training, and its evaluation before."""
    folder = tmp_path_factory.mktemp("dpo") / "checkpoints"
    trainer = make_trainer(folder, save_steps=3, precompute_ref_log_probs=True)
    before = trainer.evaluate()
    trainer.train()
    return trainer, before


def test_the_pass_of_the_reference_has_our_progress(tmp_path, capsys):
    make_trainer(tmp_path, precompute_ref_log_probs=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if "reference" in line]
    assert [line.partition(" batches")[0] for line in lines if "left" in line] == [
        *(f"reference of the training file {n}/3" for n in (1, 2, 3)),
        *(f"reference of the evaluation file {n}/2" for n in (1, 2)),
    ]
    assert not any("Computing reference" in line for line in lines)


def test_without_a_training_there_is_no_preference(trained):
    _, before = trained
    assert before["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert before["eval_rewards/margins"] == pytest.approx(0, abs=1e-6)


def test_the_chosen_answers_become_more_likely_than_the_rejected_ones(trained):
    trainer, before = trained
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] - 0.1
    assert after["eval_rewards/margins"] > 0.5
    assert after["eval_rewards/accuracies"] == 1


def test_the_reference_is_the_base_and_there_is_no_second_copy_of_it(trained):
    trainer, _ = trained
    assert trainer.ref_model is None
    trained_names = [n for n, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert trained_names and all(".lora_" in name for name in trained_names)


def test_its_checkpoints_are_complete(trained):
    from checkpoints import is_complete

    trainer, _ = trained
    folder = trainer._checkpoints.folder
    assert {path.name for path in folder.iterdir()} == {"checkpoint-3", "checkpoint-6"}
    assert all(map(is_complete, folder.iterdir()))


def test_a_starting_adapter_is_the_reference(trained, tmp_path):
    trainer, _ = trained
    trainer.model.save_pretrained(tmp_path / "adapter")
    again = make_trainer(tmp_path / "checkpoints", adapter=tmp_path / "adapter")
    assert again.evaluate()["eval_rewards/margins"] == pytest.approx(0, abs=1e-6)


def test_the_fast_scores_equal_those_of_trl(tmp_path, monkeypatch):
    import batches

    fast = make_trainer(tmp_path).evaluate()
    monkeypatch.setattr(batches, "score_answers_only", lambda *args, **kwargs: None)
    slow = make_trainer(tmp_path).evaluate()
    names = [name for name in slow if name.startswith(("eval_l", "eval_e", "eval_rewards"))]
    assert {"eval_loss", "eval_logits/chosen", "eval_logps/rejected", "eval_entropy"} <= set(names)
    for name in names:
        assert fast[name] == pytest.approx(slow[name], rel=1e-4, abs=1e-4)


def test_rows_that_max_length_shortens_are_counted(tmp_path):
    from inputs import TrainError

    with pytest.raises(TrainError, match=r"8 of 12 rows of the training file are longer than max"):
        make_trainer(tmp_path, max_length=20)
    trainer = make_trainer(tmp_path, max_length=20, max_cut_share=1.0)
    counts = trainer.row_counts["train"]
    assert (counts.total, counts.cut + counts.dropped) == (12, 8)
    assert len(trainer.train_dataset) == counts.kept > 0
