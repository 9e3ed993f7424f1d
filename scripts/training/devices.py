"""What this machine computes on, and how: precision, attention kernel, threads."""

from __future__ import annotations

import importlib.util
from typing import Any

AUTO = "auto"
# Compute capability of Ampere, the first that FlashAttention 2 and fast bf16 run on.
AMPERE = (8, 0)
# Below this, a second thread costs more in waiting than it computes.
ONE_THREAD_PARAMETERS = 10_000_000
PRECISIONS: dict[str, dict[str, Any]] = {
    "cpu": {"use_cpu": True, "bf16": False, "fp16": False},
    "cuda": {"use_cpu": False, "bf16": True, "fp16": False},
    "cuda without bf16": {"use_cpu": False, "bf16": False, "fp16": True},
}


def choose_device() -> str:
    """A key of PRECISIONS: what this machine has."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    # V100 and older only emulate bf16, slowly.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "cuda" if native else "cuda without bf16"


def choose_attention(wanted: str, device: str) -> str:
    """The implementation that a recipe's `attention` names; `auto` is the fastest that is there.

    FlashAttention takes a packed row's documents as they are; sdpa builds a mask of length x length.
    """
    if wanted != AUTO:
        return wanted
    import torch

    fast = device == "cuda" and torch.cuda.get_device_capability() >= AMPERE
    return "flash_attention_2" if fast and importlib.util.find_spec("flash_attn") else "sdpa"


def threads_for(parameters: int, available: int) -> int:
    """How many threads a model of that many parameters is worth on a CPU."""
    return 1 if parameters < ONE_THREAD_PARAMETERS else available
