"""Several processes that train together, one a GPU.

Each is told its place by environment variables, which `torchrun`, `accelerate launch` and Azure ML's
PyTorch distribution all set. Contract: "Environment Variables" of "torchrun (Elastic Launch)".
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inputs import Recipe, TrainError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer


@dataclass(frozen=True)
class Place:
    """This process's place among those that train together.

    Attributes:
        rank: 0 is the main one, which alone prints and writes the result.
        local_rank: among those of this machine: the number of its GPU.
        size: how many there are.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


ALONE = Place()


def place() -> Place:
    """This process's place, by the environment.

    Raises:
        TrainError: a variable is no number.
    """
    try:
        found = (int(os.environ.get(name, "")) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        return Place(*found) if "WORLD_SIZE" in os.environ else ALONE
    except ValueError as error:
        fix = "start it with torchrun, or unset WORLD_SIZE"
        raise TrainError(
            "RANK, LOCAL_RANK, WORLD_SIZE are not whole", "environment", fix
        ) from error


def arguments(recipe: Recipe, here: Place, device: str) -> dict[str, Any]:
    """What training in several processes changes in the recipe's `trainer` settings.

    Accumulation is divided among the processes, so that a step sees as many sequences as the recipe
    says and its learning rate stays right. The model's states are sharded (FSDP2) where the recipe has
    a section `fsdp`; elsewhere each process has all of them (DDP).
    """
    if here.size == 1:
        return {}
    accumulation = recipe.trainer.get("gradient_accumulation_steps", 1)
    changed: dict[str, Any] = {
        "gradient_accumulation_steps": math.ceil(accumulation / here.size),
        "ddp_backend": "gloo" if device == "cpu" else None,
    }
    checkpointing = recipe.trainer.get("gradient_checkpointing", True)
    if recipe.fsdp is None:
        return changed | {"ddp_find_unused_parameters": False}
    # Recomputing outside of FSDP would gather every layer's weights once more.
    config = {"activation_checkpointing": checkpointing, **recipe.fsdp}
    return changed | {"fsdp": True, "fsdp_config": config, "gradient_checkpointing": False}


def agreed(value: int | None, here: Place) -> int | None:
    """The largest of what all processes give, so that all take the same turn."""
    if here.size == 1:
        return value
    import torch
    from accelerate import PartialState

    shared = torch.tensor(value or 0, device=PartialState().device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return int(shared) or None


def together(here: Place) -> None:
    """Wait until all processes are here."""
    if here.size > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def leave() -> None:
    """End the group of processes, if there is one."""
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def whole_model(trainer: Trainer) -> PreTrainedModel:
    """The trained model in one piece, and the end of working together.

    Every process has to ask, and only the main one gets all of it. The group ends here since
    transformers would have it agree on each model that is loaded, and the others load none.
    """
    if not trainer.is_fsdp_enabled:
        leave()
        return trainer.model
    import transformers
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(trainer.model, options=options)
    leave()
    if not trainer.args.should_save:
        return trainer.model
    kind = getattr(transformers, trainer.model.config.architectures[0])
    model = kind.from_pretrained(None, config=trainer.model.config, state_dict=weights)
    model.generation_config = trainer.model.generation_config
    return model
