"""Batches: shared sequences and the answers' logits change the time, not the loss or its gradients."""

import pytest
import torch
from inputs import TrainError
from training_run import ROWS, conversation

pytestmark = pytest.mark.filterwarnings("ignore")

SYSTEM = {"role": "system", "content": "You answer with the name of a capital."}
WITH_SYSTEM = [{"messages": [SYSTEM, *row["messages"]]} for row in ROWS]
LONGER = conversation("What is the capital of France, Italy and Spain? Tell me all of them.", "No.")


def make_trainer(folder, rows, **settings):
    from test_trainer import make_trainer

    settings = {"per_device_train_batch_size": len(rows), "max_length": 256, **settings}
    return make_trainer(folder, rows=rows, **settings)


def loss_and_gradients(trainer, batch=None):
    """Return the loss of a trainer's first batch, and the gradients of all weights."""
    batch = batch or next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model.train(), dict(batch))
    loss.backward()
    gradients = {name: weight.grad for name, weight in trainer.model.named_parameters()}
    return loss.detach(), gradients, trainer._metrics["train"]


@pytest.mark.parametrize("rows", [ROWS, WITH_SYSTEM, [*WITH_SYSTEM[:5], LONGER], WITH_SYSTEM[:1]])
@pytest.mark.parametrize("rows_per_sequence", [3, 100])
def test_rows_in_one_sequence_have_the_loss_and_gradients_of_rows_alone(
    tmp_path, rows, rows_per_sequence
):
    padded = loss_and_gradients(make_trainer(tmp_path, rows))
    trainer = make_trainer(tmp_path, rows, rows_per_sequence=rows_per_sequence)
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(batch["input_ids"]) == -(-len(rows) // rows_per_sequence)
    shared = loss_and_gradients(trainer, batch)
    torch.testing.assert_close(shared[0], padded[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shared[1], padded[1], rtol=1e-3, atol=1e-5)
    for name in ("entropy", "mean_token_accuracy"):
        assert shared[2][name] == pytest.approx(padded[2][name], rel=1e-4)


def test_a_shared_beginning_is_computed_once_per_sequence(tmp_path):
    trainer = make_trainer(tmp_path, WITH_SYSTEM, rows_per_sequence=4)
    batch = next(iter(trainer.get_train_dataloader()))
    shared = (batch["segment_ids"] == 0) & (batch["attention_mask"] == 1)
    system = trainer.processing_class(SYSTEM["content"])["input_ids"]
    assert (shared.sum(1) > len(system)).all()
    rows = [row["input_ids"] for row in trainer.train_dataset]
    saved = sum(map(len, rows)) - batch["attention_mask"].sum()
    assert saved == (len(rows) - len(batch["input_ids"])) * shared[0].sum()
    trainer.compute_loss(trainer.model, dict(batch))
    assert trainer._metrics["train"]["num_tokens"] == [batch["attention_mask"].sum()]


def test_rows_in_one_sequence_do_not_see_each_other():
    from batches import visible_tokens

    seen = visible_tokens(torch.tensor([[0, 1, 1, 2, 0]]), torch.tensor([[1, 1, 1, 1, 0]]))
    assert seen[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1],  # padding
    ]


def test_the_shared_beginning_ends_before_the_first_answer():
    from batches import shared_start

    def example(tokens, answer):
        labels = [-100] * (len(tokens) - answer) + tokens[len(tokens) - answer :]
        return {"input_ids": tokens, "labels": labels}

    assert shared_start([example([1, 2, 3, 4], 1), example([1, 2, 3, 5], 1)]) == 2
    assert shared_start([example([1, 2, 3, 4], 1), example([1, 2, 7, 5], 1)]) == 2
    assert shared_start([example([1, 2, 3, 4], 4), example([1, 2, 3, 5], 1)]) == 0
    assert shared_start([example([1, 2], 1), example([3, 4], 1)]) == 0


def test_groups_have_about_the_same_number_of_tokens():
    from batches import distribute

    rows = [{"input_ids": [0] * length} for length in (9, 1, 8, 2, 7, 3)]
    groups = distribute(rows, 3)
    assert [sum(len(row["input_ids"]) for row in group) for group in groups] == [10, 10, 10]


def test_the_answers_logits_give_the_loss_and_gradients_of_all_logits(tmp_path, monkeypatch):
    import batches

    answers_only = loss_and_gradients(make_trainer(tmp_path, ROWS))
    monkeypatch.setattr(batches, "score_answers_only", lambda model: None)
    everything = loss_and_gradients(make_trainer(tmp_path, ROWS))
    torch.testing.assert_close(answers_only[:2], everything[:2], rtol=1e-4, atol=1e-6)
    for name in ("entropy", "mean_token_accuracy", "num_tokens"):
        assert answers_only[2][name] == pytest.approx(everything[2][name], rel=1e-4)


def test_only_the_answers_logits_are_computed(tmp_path):
    trainer = make_trainer(tmp_path, ROWS)
    shapes = []
    head = trainer.model.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(trainer.model, dict(batch))
    assert [shape[0] for shape in shapes] == [(batch["labels"] != -100).sum()]


def test_the_model_still_generates(tmp_path):
    from samples import generate_answers

    trainer = make_trainer(tmp_path, ROWS, rows_per_sequence=4)
    prompts = [row["messages"][:-1] for row in ROWS[:2]]
    assert len(generate_answers(trainer.model, trainer.processing_class, prompts, 4)) == 2


def test_rows_beyond_the_sliding_window_are_refused(tmp_path):
    from batches import accept_shared_sequences

    model = make_trainer(tmp_path, ROWS).model
    model.config.sliding_window = 64
    with pytest.raises(TrainError, match="sliding window of 64 tokens, trainer.max_length: set it"):
        accept_shared_sequences(model, 65)
    accept_shared_sequences(model, 64)
