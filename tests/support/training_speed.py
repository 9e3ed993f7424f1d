"""One training run of the training benchmarks: a recipe's settings, the model, the steps and the loss."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

TRAINING = Path(__file__).resolve().parents[2] / "scripts" / "training"
sys.path.insert(0, str(TRAINING))

import adapters  # noqa: E402
import devices  # noqa: E402
import models  # noqa: E402
from inputs import Recipe, read_recipe  # noqa: E402

CHUNK = 2048  # tokens whose logits exist at the same time
MAX_GRAD_NORM = 1.0  # transformers' default, which all recipes use
TUTORIALS = "tutorials' recipe"


@dataclass(frozen=True)
class Size:
    """The size of the model and of the measurement.

    Attributes:
        shape: settings of Phi3Config.
        sequence: tokens per row.
        seconds: measured seconds of each run, after one step as a warm-up.
        rounds: runs of each recipe.
        limits: the largest allowed ratio of our time per token to the peer's, by both names.
    """

    shape: dict[str, int]
    sequence: int
    seconds: float
    rounds: int
    limits: dict[tuple[str, str], float]


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes:
        rows: sequences per forward pass.
        accumulation: forward passes per step of the optimizer.
        isolated: whether each document of a row attends only to itself.
        recipe: our recipe; None for the tutorials' recipe.
    """

    name: str
    rows: int
    accumulation: int
    dtype: torch.dtype
    attention: str
    checkpointing: bool
    fused_optimizer: bool
    isolated: bool
    recipe: Recipe | None = None

    @property
    def trains_all(self) -> bool:
        return self.recipe is None or self.recipe.lora is None


def tutorials() -> Setting:
    """Return the tutorials' recipe, which is that of fine_tune.py.

    Source: "Fine-Tune and Integrate Custom Phi-3 Models with Prompt flow".
    """
    return Setting(
        name=TUTORIALS,
        rows=4,
        accumulation=1,
        dtype=torch.bfloat16,
        attention="eager",
        checkpointing=True,
        fused_optimizer=False,
        isolated=False,
    )


def ours(name: str, device: str) -> Setting:
    """Return one of our recipes, with the settings that train.py uses on this device."""
    recipe = read_recipe(TRAINING / "recipes" / f"{name}.yaml")
    return Setting(
        name=name,
        rows=recipe.trainer["per_device_train_batch_size"],
        accumulation=recipe.trainer["gradient_accumulation_steps"],
        dtype=models.weights_dtype(recipe, device),
        attention=devices.choose_attention(recipe.attention, device),
        checkpointing=recipe.trainer["gradient_checkpointing"],
        fused_optimizer=recipe.trainer["optim"] == "adamw_torch_fused",
        isolated=recipe.trainer["packing_strategy"] == "bfd",
        recipe=recipe,
    )


# -- one run -----------------------------------------------------------------------------------------


def run(setting: Setting, size: Size, device: str) -> tuple[float, float]:
    """Train a new model for `size.seconds`.

    Returns:
        The tokens per second, and the peak of the GPU's memory in bytes (0 on a CPU).
    """
    torch.manual_seed(0)
    model = build(setting, size, device)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    release(device)  # so that the memory's peak does not include building the model
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=setting.fused_optimizer or None)
    batches = [batch(setting, size, device, seed) for seed in range(setting.accumulation)]
    step = partial(optimizer_step, model, optimizer, trained, setting, batches)
    step()
    synchronize(device)
    # On a CPU there is one thread. Its CPU time does not depend on other load on the machine.
    clock = time.process_time if device == "cpu" else time.perf_counter
    steps, started = 0, clock()
    while (elapsed := clock() - started) < size.seconds:
        step()
        synchronize(device)
        steps += 1
    tokens = steps * setting.accumulation * setting.rows * size.sequence
    return tokens / elapsed, torch.cuda.max_memory_allocated() if device != "cpu" else 0.0


def build(setting: Setting, size: Size, device: str) -> Any:
    config = transformers.Phi3Config(
        **size.shape, pad_token_id=0, bos_token_id=1, eos_token_id=2, use_cache=False
    )
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=setting.dtype, attn_implementation=setting.attention
        )
    if not setting.trains_all:
        from peft import get_peft_model

        model = get_peft_model(model, adapters.make_lora(setting.recipe))
    if setting.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": setting.recipe is None})
        if not setting.trains_all:
            model.enable_input_require_grads()
    return model.train()


def batch(setting: Setting, size: Size, device: str, seed: int) -> dict[str, torch.Tensor]:
    """Return random rows.

    Isolated documents are in one long row, and each starts at position 0 (TRL's padding-free packing).
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (setting.rows, size.sequence)
    tokens = torch.randint(3, size.shape["vocab_size"], shape, generator=generator).to(device)
    if not setting.isolated:
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    lengths = documents(size.sequence) * setting.rows
    positions = torch.cat([torch.arange(length) for length in lengths])
    return {"input_ids": tokens.view(1, -1), "position_ids": positions[None].to(device)}


def documents(sequence: int) -> list[int]:
    """Return the lengths of the documents in a row: a half, a quarter, an eighth and an eighth."""
    return [sequence // 2, sequence // 4, sequence // 8, sequence // 8]


def optimizer_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    trained: list[torch.Tensor],
    setting: Setting,
    batches: Sequence[dict[str, torch.Tensor]],
) -> None:
    for inputs in batches:
        with autocast(setting, inputs["input_ids"].device.type):
            loss = (
                full_loss(model, inputs) if setting.recipe is None else chunked_loss(model, inputs)
            )
        (loss / len(batches)).backward()
    torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
    optimizer.step()
    optimizer.zero_grad()


def autocast(setting: Setting, device: str) -> Any:
    """Return bf16 autocast for bf16 weights and for every GPU, otherwise no autocast."""
    if setting.dtype == torch.bfloat16 or device == "cuda":
        return torch.autocast(device, torch.bfloat16)
    return nullcontext()


def full_loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs, labels=inputs["input_ids"]).loss


def chunked_loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the same loss as `full_loss`, without holding the logits of all tokens at once.

    The logits of 8,192 tokens take gigabytes.
    """
    causal = getattr(model, "get_base_model", lambda: model)()
    hidden = causal.model(**inputs, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    labels = inputs["input_ids"][:, 1:].flatten()
    if "position_ids" in inputs:  # nothing predicts the first token of a document
        labels = labels.masked_fill(inputs["position_ids"][:, 1:].flatten() == 0, -100)
    parts = [
        torch.utils.checkpoint.checkpoint(summed_loss, causal.lm_head, *part, use_reentrant=False)
        for part in zip(hidden.split(CHUNK), labels.split(CHUNK))
    ]
    return torch.stack(parts).sum() / (labels != -100).sum()


def summed_loss(head: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(head(hidden).float(), labels, reduction="sum")


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def release(device: str) -> None:
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
