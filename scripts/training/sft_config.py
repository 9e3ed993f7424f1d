"""TRL's settings for a run: the recipe's, and those that a recipe cannot change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import devices
import distributed
from inputs import Recipe, TrainError

if TYPE_CHECKING:
    from trl import SFTConfig


def make_config(
    recipe: Recipe,
    device: str,
    folder: Path,
    path: Path,
    process: distributed.ProcessInfo = distributed.SINGLE_PROCESS,
) -> SFTConfig:
    """Return TRL's settings for a run.

    Args:
        recipe: recipe of the run.
        device: key of devices.PRECISIONS.
        folder: folder for checkpoints.
        path: the recipe's file, for error messages.
        process: this process among those that train together.

    Raises:
        TrainError: TRL does not accept a setting of the recipe, or its value.
    """
    from trl import SFTConfig

    try:
        return SFTConfig(
            **{
                "logging_steps": 10,
                "logging_first_step": True,
                "eval_strategy": "epoch",
                **recipe.trainer,
                **distributed.trainer_settings(recipe, process, device),
            },
            **devices.PRECISIONS[device],
            dataloader_pin_memory=device != "cpu",
            output_dir=str(folder),
            seed=recipe.seed,
            assistant_only_loss=True,
            save_strategy="steps",
            save_total_limit=2,
            # With the filter, a loss that is not a number is logged as the mean of earlier losses.
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
        )
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0].replace("SFTConfig.__init__() got an ", "")
        problem = f"the recipe's `trainer` is wrong ({reason})"
        raise TrainError(problem, path, "see the settings of TRL's SFTConfig") from error


def describe_batch(config: SFTConfig) -> str:
    """Return the number of sequences per optimizer step, and its factors."""
    size, accumulation = config.per_device_train_batch_size, config.gradient_accumulation_steps
    total = size * accumulation * config.world_size
    factors = f"batch {size} x accumulation {accumulation} x processes {config.world_size}"
    return f"{total} per step ({factors})"
