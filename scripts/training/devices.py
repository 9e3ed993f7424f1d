"""Choose the device, and the precision, attention implementation and threads that suit it."""

from __future__ import annotations

import importlib.util
from typing import Any

import gpu
from inputs import TrainError

AUTO = "auto"
# Compute capability of Ampere GPUs, the first with FlashAttention 2 and fast bf16.
AMPERE = (8, 0)
# Models with fewer parameters than this train faster with one thread.
ONE_THREAD_PARAMETERS = 10_000_000
PRECISIONS: dict[str, dict[str, Any]] = {
    "cpu": {"use_cpu": True, "bf16": False, "fp16": False},
    "cuda": {"use_cpu": False, "bf16": True, "fp16": False},
    "cuda without bf16": {"use_cpu": False, "bf16": False, "fp16": True},
}


def choose_device() -> str:
    """Return the key of PRECISIONS that describes this machine.

    Raises:
        TrainError: this machine has a GPU that torch cannot use. Training on its CPU would take days.
    """
    import torch

    if not torch.cuda.is_available():
        if reason := gpu.unused_gpu():
            raise TrainError(reason, "this machine", gpu.how_to_use_it())
        return "cpu"
    # V100 and older GPUs emulate bf16, which is slow.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "cuda" if native else "cuda without bf16"


def choose_attention(attention: str, device: str) -> str:
    """Return the attention implementation for a recipe's `attention`; `auto` is the fastest one.

    FlashAttention reads the documents of a packed row directly. sdpa builds a mask of size
    length x length.
    """
    if attention != AUTO:
        return attention
    import torch

    fast = device == "cuda" and torch.cuda.get_device_capability() >= AMPERE
    return "flash_attention_2" if fast and importlib.util.find_spec("flash_attn") else "sdpa"


def choose_threads(parameters: int, available: int) -> int:
    """Return the number of CPU threads for a model with that many parameters."""
    return 1 if parameters < ONE_THREAD_PARAMETERS else available
