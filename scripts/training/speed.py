"""Speed of a training: tokens per second, MFU and memory at each log entry."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

import psutil  # installed with accelerate
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# Dense bf16 (V100 and T4: fp16) peaks in FLOP/s without sparsity, from NVIDIA's data sheets. The first
# name whose words are in the name that torch gives the card counts.
PEAKS = {
    "B200": 2250e12, "GH200": 989e12, "H200 NVL": 835e12, "H200": 989e12, "H100 PCIe": 756e12,
    "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12, "A10G": 70e12, "A10": 125e12, "L40S": 362e12,
    "L40": 181e12, "L4": 121e12, "V100": 125e12, "T4": 65e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip
# Words in the names of slower or faster variants, and of parts of a card (MIG; vGPU: "A10-4Q").
VARIANT = re.compile(r"\b(Laptop|Max-Q|Ti|D|MIG|\d+[ABCQ])\b")


def peak_flops(card: str) -> float | None:
    """Return a card's peak in FLOP/s, or None if it is not in the table.

    Args:
        card: name that torch gives the card. A name of the table counts only as whole words: an
            "RTX A1000" is not an "A100".
    """
    if VARIANT.search(card):
        return None
    peaks = (peak for name, peak in PEAKS.items() if re.search(rf"\b{re.escape(name)}\b", card))
    return next(peaks, None)


def flops_per_token(model: torch.nn.Module) -> float:
    """Return the floating-point operations of a training step per token.

    Each weight takes 2 in the forward pass, 2 for the gradient of its input if a weight before it is
    trained, and 2 for its own gradient if it is trained. Attention's products, recomputed activations
    and the reference of preferences are left out. Source: "Scaling Laws for Neural Language Models",
    section 2.1.

    Args:
        model: model with or without adapters, whose weights are listed from its input to its output.
    """
    embeddings = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    weights = [weight for weight in model.parameters() if weight is not embeddings]
    # A tied head has the embeddings' weights, and is the last product.
    weights += [head] if head is embeddings else []
    flops, is_after_trained = 0.0, embeddings.requires_grad
    for weight in weights:
        is_after_trained = is_after_trained or weight.requires_grad
        flops += 2.0 * weight.numel() * (1 + is_after_trained + weight.requires_grad)
    return flops


class Speed(TrainerCallback):
    """Measures the steps, without the evaluations and checkpoints between them.

    Args:
        model: model that is trained.
        processes: number of processes that train together.
    """

    def __init__(self, model: torch.nn.Module, processes: int) -> None:
        card = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        self._peak = peak_flops(card)
        self._flops = flops_per_token(model)
        self._processes = processes
        self._began: float | None = None
        self._seconds = 0.0
        self._tokens = 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._began = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._began is not None:
            self._seconds += time.monotonic() - self._began
            self._began = None

    def measure(self, tokens: float) -> dict[str, float]:
        """Return the figures of the steps since the last call; nothing without a step.

        Args:
            tokens: number of tokens that this process's run has trained on so far, over all processes.

        Returns:
            `tokens_per_second`, `memory_gb` and, on a card of the table, `mfu` (a share).
        """
        if not self._seconds:
            return {}
        rate = (tokens - self._tokens) / self._seconds
        self._tokens, self._seconds = tokens, 0.0
        figures = {"tokens_per_second": round(rate, 1), "memory_gb": round(memory() / 1e9, 2)}
        if self._peak is not None:
            figures["mfu"] = round(rate * self._flops / (self._peak * self._processes), 4)
        return figures


def memory() -> int:
    """Return bytes: the GPU tensors' peak so far, or on a CPU the process's current memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Return bytes: the GPU tensors' peak so far, or on a CPU that of the process.

    The peak of resource.getrusage would include the memory of the process that started this one.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):  # not Linux
        info = psutil.Process().memory_info()
        return int(getattr(info, "peak_wset", info.rss))


def matrix_product_flops(side: int = 1024, rounds: int = 8) -> float:
    """Return the largest measured rate of a square float32 matrix product on this CPU, in FLOP/s.

    Args:
        side: rows and columns of the matrices.
        rounds: number of products, of which the fastest counts.
    """
    square = torch.randn(side, side)
    best = math.inf
    for _ in range(rounds):
        started = time.perf_counter()
        square @ square
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best
