"""TRL's settings for a run: the recipe's, and those that a recipe cannot change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import devices
import distributed
from inputs import Recipe, TrainError
from recipe_checks import DPO

if TYPE_CHECKING:
    from trl import DPOConfig, SFTConfig


def make_config(
    recipe: Recipe,
    device: str,
    folder: Path,
    path: Path,
    process: distributed.ProcessInfo = distributed.SINGLE_PROCESS,
) -> SFTConfig | DPOConfig:
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
    import trl

    is_dpo = recipe.method == DPO
    config_class = trl.DPOConfig if is_dpo else trl.SFTConfig
    settings = {
        "logging_steps": 10,
        "logging_first_step": True,
        "eval_strategy": "epoch",
        **({} if is_dpo else {"assistant_only_loss": True}),
        **recipe.trainer,
        **distributed.trainer_settings(recipe, process, device),
    }
    keeps_best = settings.pop("load_best_model_at_end", False)
    if keeps_best:
        settings.setdefault("metric_for_best_model", "loss")
    try:
        config = config_class(
            **settings,
            **devices.PRECISIONS[device],
            dataloader_pin_memory=device != "cpu",
            output_dir=str(folder),
            seed=recipe.seed,
            save_strategy="steps",
            save_total_limit=2,
            # With the filter, a loss that is not a number is logged as the mean of earlier losses.
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
        )
    except (TypeError, ValueError) as error:
        name = config_class.__name__
        reason = str(error).partition("\n")[0].replace(f"{name}.__init__() got an ", "")
        problem = f"the recipe's `trainer` is wrong ({reason})"
        raise TrainError(problem, path, f"see the settings of TRL's {name}") from error
    # Set afterwards, since TRL accepts it only if each checkpoint is evaluated. The trainer writes one
    # whenever an evaluation is the best so far.
    config.load_best_model_at_end = keeps_best
    return config


def describe_batch(config: SFTConfig | DPOConfig) -> str:
    """Return the number of sequences per optimizer step, and its factors."""
    size, accumulation = config.per_device_train_batch_size, config.gradient_accumulation_steps
    total = size * accumulation * config.world_size
    factors = f"batch {size} x accumulation {accumulation} x processes {config.world_size}"
    return f"{total} per step ({factors})"
