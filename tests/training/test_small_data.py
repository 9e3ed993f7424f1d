"""Few rows are trained on in more epochs."""

from __future__ import annotations

import pytest
from inputs import TrainError, read_recipe
from small_data import describe_few_steps, lengthen


def rows(count, phrasings=1):
    return [
        {"messages": [{"role": "user", "content": str(n)}, {"role": "assistant", "content": text}]}
        for n in range(count)
        for text in [str(n // phrasings)]
    ]


@pytest.fixture
def recipe(request):
    folder = request.config.rootpath / "scripts" / "training" / "recipes"
    return read_recipe(folder / "smollm2-cpu.yaml")


def epochs(recipe, *args, processes=1, given=None):
    return lengthen(recipe, rows(*args), processes, given)[0].trainer["num_train_epochs"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((32,), 12),  # 24 steps
        ((480, 5), 3),  # the samples: 90 steps
        ((200,), 12),  # 156 steps
        ((800,), 4),  # 12 epochs would be 600 steps
        ((5000,), 3),  # the recipe's own number
        ((2,), 12),
    ],
)
def test_the_epochs_follow_from_the_rows_and_their_answers(recipe, args, expected):
    assert epochs(recipe, *args) == expected


def test_a_longer_training_is_announced(recipe):
    line = (
        "32 rows are few for this recipe: training 12 epochs instead of 3, 24 steps; --epochs sets"
    )
    assert lengthen(recipe, rows(32), 1, None)[1].startswith(line)
    assert lengthen(recipe, rows(480, 5), 1, None)[1] == ""


def test_the_command_line_decides_and_too_few_steps_are_named(recipe):
    fix = "leave out --epochs, or give --epochs 12 (24 steps)"
    message = f"2 steps may be too few to learn 32 rows: {fix}"
    assert lengthen(recipe, rows(32), 1, 1) == (recipe, message)
    assert lengthen(recipe, rows(32), 1, 12) == (recipe, "")


def test_processes_share_the_steps(recipe):
    assert epochs(recipe, 800, processes=4) == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("small_data: {steps: 5}", "small_data needs repetitions and steps"),
        ("small_data: {steps: 5, repetitions: 0}", "is not an integer above 0"),
        ("small_data: {steps: 5, repetitions: true}", "is not an integer above 0"),
        (
            "small_data: {steps: 5, repetitions: 5}\ntrainer: {packing: true}",
            "`small_data` with trainer.packing",
        ),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(f"model: owner/name\n{text}\n")
    with pytest.raises(TrainError, match=message):
        read_recipe(tmp_path / "r.yaml")


def test_too_few_steps_of_any_recipe_are_named():
    assert describe_few_steps(10) == ""
    assert describe_few_steps(1).startswith("1 step is too few to learn from: give more rows")
    assert describe_few_steps(1, has_max_steps=True).endswith(
        "raise trainer.max_steps in the recipe"
    )
    assert describe_few_steps(6).startswith("6 steps are too few to learn from")
