"""Train longer on few rows.

The epochs of a recipe suit its samples. A small table would give too few steps to learn from, and rows
whose answers occur only once need more epochs than several phrasings of each answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from inputs import Recipe, Row

DEFAULT_EPOCHS = 3  # TRL's
DEFAULT_BATCH = 8  # TRL's
FEW_STEPS = 10  # with fewer, no recipe learns


def lengthen(
    recipe: Recipe, rows: Sequence[Row], processes: int, epochs: float | None
) -> tuple[Recipe, str]:
    """Return the recipe with the number of epochs that the rows need, and a line that says so.

    Each answer is trained on `small_data.repetitions` times, unless this takes more than
    `small_data.steps` steps. The epochs are never fewer than the recipe's.

    Args:
        recipe: recipe of the run.
        rows: rows to train on.
        processes: number of processes that train together.
        epochs: the command line's number of epochs, which is not changed, or None.

    Returns:
        The recipe; and what was changed, or what the command line's epochs are too few for, or "".
    """
    if recipe.small_data is None:
        return recipe, ""
    steps_per_epoch = _steps_per_epoch(recipe, len(rows), processes)
    needed = _needed_epochs(recipe.small_data, rows, steps_per_epoch)
    usual = float(recipe.trainer.get("num_train_epochs", DEFAULT_EPOCHS))
    if needed <= (usual if epochs is None else epochs):
        return recipe, ""
    if epochs is not None:
        steps = math.ceil(epochs * steps_per_epoch)
        return recipe, (
            f"{steps} step{'s' if steps != 1 else ''} may be too few to learn {len(rows)} rows: leave "
            f"out --epochs, or give --epochs {needed} ({needed * steps_per_epoch} steps)"
        )
    longer = replace(recipe, trainer={**recipe.trainer, "num_train_epochs": needed})
    return longer, (
        f"{len(rows)} rows are few for this recipe: training {needed} epochs instead of {usual:g}, "
        f"{needed * steps_per_epoch} steps; --epochs sets another number"
    )


def _needed_epochs(small_data: dict[str, int], rows: Sequence[Row], steps_per_epoch: int) -> int:
    answers = {row["messages"][-1]["content"] for row in rows}
    for_repetitions = math.ceil(small_data["repetitions"] * len(answers) / len(rows))
    return min(for_repetitions, math.ceil(small_data["steps"] / steps_per_epoch))


def _steps_per_epoch(recipe: Recipe, rows: int, processes: int) -> int:
    batch = recipe.trainer.get("per_device_train_batch_size", DEFAULT_BATCH)
    batch *= recipe.trainer.get("gradient_accumulation_steps", 1) * processes
    return math.ceil(rows / batch)


def describe_few_steps(steps: int, has_max_steps: bool = False) -> str:
    """Return a warning if a training has too few steps to learn anything, or "".

    Args:
        steps: number of optimizer steps.
        has_max_steps: whether the recipe has `max_steps`, so that rows and epochs do not change them.
    """
    if steps >= FEW_STEPS:
        return ""
    number = f"{steps} steps are" if steps != 1 else "1 step is"
    if has_max_steps:
        return f"{number} too few to learn from: raise trainer.max_steps in the recipe"
    return (
        f"{number} too few to learn from: give more rows, more --epochs, or a recipe with fewer rows "
        "per step"
    )
