"""When a training stops early, and when it is said to over-fit."""

from types import SimpleNamespace

import pytest
from early_stopping import EarlyStopping, count_without_gain, describe_overfitting


@pytest.mark.parametrize(
    ("values", "min_gain", "count"),
    [
        ([], 0.0, 0),
        ([-3.0, -2.0, -1.0], 0.0, 0),
        ([-1.0, -1.0, -2.0], 0.0, 2),
        ([-3.0, -2.9, -2.8], 0.15, 0),
        ([-3.0, -2.95, -2.9], 0.2, 2),
        ([-1.0, -2.0, -0.5], 0.0, 0),
    ],
)
def test_evaluations_without_a_gain_are_counted_from_the_best_one(values, min_gain, count):
    assert count_without_gain(values, min_gain) == count


def evaluate(losses, patience=2):
    """Return whether a training with these evaluation losses is stopped, and its callback."""
    history = [{"step": 0, "eval_loss": 0.1}]  # the base, which does not count
    history += [{"step": step, "eval_loss": loss} for step, loss in enumerate(losses, 1)]
    stopper = EarlyStopping(patience)
    state = SimpleNamespace(log_history=history, global_step=len(losses), max_steps=99)
    control = SimpleNamespace(should_training_stop=False)
    args = SimpleNamespace(metric_for_best_model="loss", greater_is_better=False)
    stopper.on_evaluate(args, state, control)
    assert stopper.has_stopped == control.should_training_stop
    return stopper.has_stopped


def test_a_training_stops_after_so_many_evaluations_without_a_better_one(capsys):
    assert not evaluate([3.0, 2.0, 2.5])
    assert capsys.readouterr().err == ""
    assert evaluate([3.0, 2.0, 2.5, 2.1])
    line = "stopping at step 4 of 99: eval_loss did not improve in 2 evaluations"
    assert line in capsys.readouterr().err
    assert not evaluate([3.0, 3.0, 3.0], patience=float("inf"))


def history(*pairs):
    entries = []
    for step, (loss, eval_loss) in enumerate(pairs, 1):
        entries += [{"step": step, "loss": loss}, {"step": step, "eval_loss": eval_loss}]
    return entries


def test_over_fitting_is_one_line_with_the_steps():
    log = history((3.0, 2.0), (2.0, 1.5), (1.0, 1.8), (0.5, 2.5))
    line = (
        "over-fitting: the evaluation loss was lowest at step 2 (1.500) and rose to 2.500 at step 4, "
        "while the training loss fell to 0.500; "
    )
    assert describe_overfitting(log, 2) == line + "the model of that step is saved"
    last_saved = describe_overfitting(log, 4)
    assert last_saved.startswith(line + "the model of step 4 is saved; ")
    assert "load_best_model_at_end" in last_saved


def test_a_rise_above_the_loss_of_the_base_is_over_fitting():
    log = [{"step": 0, "eval_loss": 2.0}, {"step": 4, "loss": 1.5}, {"step": 8, "loss": 0.1}]
    log.append({"step": 8, "eval_loss": 4.021})
    assert describe_overfitting(log, 8) == (
        "over-fitting: the evaluation loss was lowest at step 0 (2.000) and rose to 4.021 at step 8, "
        "while the training loss fell to 0.100; the model of step 8 is saved, and the base was better"
    )


@pytest.mark.parametrize(
    "log",
    [
        [],
        [{"step": 0, "eval_loss": 1.0}, {"step": 9, "eval_loss": 5.0}],
        history((3.0, 2.0), (2.0, 1.5), (1.0, 1.4)),
        history((3.0, 1.5), (2.0, 1.51)),
        history((1.0, 1.5), (1.0, 1.4), (2.0, 3.0), (2.5, 3.5)),
    ],
)
def test_a_loss_that_falls_or_hardly_rises_is_not_over_fitting(log):
    assert describe_overfitting(log, 2) == ""
