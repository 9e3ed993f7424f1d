"""Several processes that train together, one per GPU.

`torchrun`, `accelerate launch` and Azure ML's PyTorch distribution give each process its rank in
environment variables. Contract: "Environment Variables" of "torchrun (Elastic Launch)".
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from inputs import Recipe, TrainError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessInfo:
    """One process among those that train together.

    Attributes:
        rank: number of the process, from 0.
        local_rank: number among the processes on this machine, which is the number of its GPU.
        count: number of processes.
    """

    rank: int = 0
    local_rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes the result for all processes."""
        return self.rank == 0


SINGLE_PROCESS = ProcessInfo()


def current_process() -> ProcessInfo:
    """Return this process's rank and count from the environment variables.

    Raises:
        TrainError: a variable is not an integer.
    """
    if "WORLD_SIZE" not in os.environ:
        return SINGLE_PROCESS
    try:
        numbers = (int(os.environ.get(name, "")) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        return ProcessInfo(*numbers)
    except ValueError as error:
        problem = "RANK, LOCAL_RANK or WORLD_SIZE is not an integer"
        fix = "start the training with torchrun, or unset WORLD_SIZE"
        raise TrainError(problem, "environment", fix) from error


def check_gpus(process: ProcessInfo, device: str) -> None:
    """Check that each process has one GPU, which TRL requires.

    Without torchrun, transformers would use all visible GPUs in one process, with `nn.DataParallel`.

    Args:
        process: this process among those that train together.
        device: key of devices.PRECISIONS.

    Raises:
        TrainError: one process sees several GPUs, or this machine has more processes than GPUs.
    """
    if device == "cpu":
        return
    import torch

    gpus = torch.cuda.device_count()
    if "WORLD_SIZE" not in os.environ:
        if gpus > 1:
            fix = (
                f"start one process per GPU, with `torchrun --nproc-per-node {gpus} train.py …` or "
                f"`phi3 finetune --local --processes {gpus}`, or use one GPU with CUDA_VISIBLE_DEVICES=0"
            )
            raise TrainError(f"one process sees {gpus} GPUs", "this machine", fix)
        return
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", process.local_rank + 1))
    if local_processes > gpus:
        fix = f"start at most {gpus} here, with --nproc-per-node or --processes"
        raise TrainError(f"{local_processes} processes share {gpus} GPUs", "this machine", fix)


def trainer_settings(recipe: Recipe, process: ProcessInfo, device: str) -> dict[str, Any]:
    """Return the `trainer` settings that several processes change.

    The processes share the accumulation, so that a step has as many sequences as the recipe says and
    the learning rate stays right. If the recipe has a section `fsdp`, the model, gradients and
    optimizer states are sharded (FSDP2). Otherwise each process has all of them (DDP).
    """
    if process.count == 1:
        return {}
    accumulation = recipe.trainer.get("gradient_accumulation_steps", 1)
    settings: dict[str, Any] = {
        "gradient_accumulation_steps": math.ceil(accumulation / process.count),
        "ddp_backend": "gloo" if device == "cpu" else None,
    }
    if recipe.fsdp is None:
        return settings | {"ddp_find_unused_parameters": False}
    # Outside of FSDP, the recomputation would gather the weights of every layer once more.
    checkpointing = recipe.trainer.get("gradient_checkpointing", True)
    config = {"activation_checkpointing": checkpointing, **recipe.fsdp}
    return settings | {"fsdp": True, "fsdp_config": config, "gradient_checkpointing": False}


def largest_value(value: int | None, processes: int) -> int | None:
    """Return the largest of the processes' values, so that all processes take the same branch."""
    if processes == 1:
        return value
    import torch
    from accelerate import PartialState

    shared = torch.tensor(value or 0, device=PartialState().device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return int(shared) or None


def gather(value: T, processes: int) -> list[T]:
    """Return the values of all processes, in the order of their ranks."""
    if processes == 1:
        return [value]
    import torch

    values: list[Any] = [None] * processes
    torch.distributed.all_gather_object(values, value)
    return values


def end_process_group() -> None:
    """End the process group, if one was started."""
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def gather_model(trainer: Trainer) -> PreTrainedModel:
    """Return the trained model unsharded, and end the process group.

    Every process has to call this function; only the main process gets the gathered weights. The
    process group ends here because transformers would synchronize all processes whenever a model is
    loaded, and only the main process loads one after this.
    """
    if not trainer.is_fsdp_enabled:
        end_process_group()
        return trainer.model
    import transformers
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(trainer.model, options=options)
    end_process_group()
    if not trainer.args.should_save:
        return trainer.model
    model_class = getattr(transformers, trainer.model.config.architectures[0])
    model = model_class.from_pretrained(None, config=trainer.model.config, state_dict=weights)
    model.generation_config = trainer.model.generation_config
    return model
