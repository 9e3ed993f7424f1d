"""Measures the speed of training on one NVIDIA GPU: our recipes compared with the tutorials' recipe.

    python tests/benchmarks/train_gpu.py --json bench/train_gpu.json

The model has the size of Phi-3-mini and random weights, so no network is needed. The required
packages are torch, transformers, accelerate and peft. Without a GPU, the script prints a message
and measures nothing; train_cpu.py is the same benchmark with a small model.

The tutorials' recipe has weights and AdamW's states in bf16, eager attention, gradient
checkpointing, 4 sequences per step, and computes the loss from the logits of all tokens. Our
recipes are recipes/full.yaml and recipes/lora.yaml, each with and without gradient checkpointing:
float32 weights under bf16 autocast (frozen weights in bf16), documents that do not attend to each
other, and the fused optimizer. `chunked_loss` (tests/support/training_speed.py) replaces TRL's
fused head; it computes parts of the forward pass again, and TRL's head is not slower. All recipes
train rows of the same length without padding, and every token counts for the loss, although our
recipes leave out the questions, which saves part of the head.

In each round, every recipe runs once with a new model. The results are the medians of the rounds.

Model FLOPs utilization (MFU) does not count recomputation, as in "PaLM: Scaling Language Modeling
with Pathways", appendix B. For each token, a matrix needs 2 operations per weight in the forward
pass, 2 for the gradients of its inputs, and 2 for the gradients of its weights if they are trained.
Attention needs 4 operations in the forward pass and 8 in the backward pass per layer, channel and
earlier token that is attended to. MFU is relative to the GPU's dense bf16 peak, which is 990
TFLOP/s for an H100 or H200.

Exits with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from bench_rows import Row, report  # noqa: E402
from training_speed import (  # noqa: E402
    TUTORIALS,
    Setting,
    Size,
    documents,
    ours,
    release,
    run,
    synchronize,
    tutorials,
)

# Operations per second in dense bf16, from NVIDIA's data sheets.
PEAKS = {"H200": 990e12, "H100": 990e12, "A100": 312e12}
TUTORIALS_FLOAT32 = "the same in float32"
GOAL_MFU = 0.45
GOAL = ("best", "MFU")
PHI3_MINI = {
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
}


# The goals: three times the tokens per second of the tutorials' recipe, and 45 % of the peak.
FULL_SIZE = Size(
    PHI3_MINI, 2048, seconds=8, rounds=2, limits={("best", TUTORIALS): 1 / 3, GOAL: 1.0}
)

# Shows on any machine that the benchmark runs to its end; its figures say nothing.
TINY_SHAPE = {
    **PHI3_MINI,
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
SIZES = {"phi-3-mini": FULL_SIZE, "tiny": Size(TINY_SHAPE, 64, seconds=8, rounds=2, limits={})}


# -- utilization -------------------------------------------------------------------------------------


def flops_per_token(setting: Setting, size: Size) -> float:
    """Return the operations that training needs per token, without recomputation (see above)."""
    hidden, layers = size.shape["hidden_size"], size.shape["num_hidden_layers"]
    inner, vocabulary = size.shape["intermediate_size"], size.shape["vocab_size"]
    # qkv and o have 4 hidden² weights if keys and values have as many heads as queries, as in Phi-3-mini.
    weights = layers * (4 * hidden**2 + 3 * hidden * inner) + vocabulary * hidden
    lengths = documents(size.sequence) if setting.isolated else [size.sequence]
    attended = sum(length**2 / 2 for length in lengths) / sum(lengths)
    return (6 if setting.trains_all else 4) * weights + 12 * layers * hidden * attended


def peak_flops(device: str) -> tuple[float, str]:
    """Return the peak of this device in operations per second, and the source of that number.

    If PEAKS does not contain the device, the peak is the largest measured rate of a square matrix
    product, in float32 on a CPU, because our recipes compute in float32 there.
    """
    name = torch.cuda.get_device_name() if device != "cpu" else "CPU"
    for known, peak in PEAKS.items():
        if known in name:
            return peak, f"{known}'s {peak / 1e12:.0f} TFLOP/s"
    side = 1024 if device == "cpu" else 8192
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    square = torch.randn(side, side, device=device, dtype=dtype)
    best = 0.0
    for _ in range(8):
        synchronize(device)
        clock = time.process_time if device == "cpu" else time.perf_counter
        started = clock()
        square @ square
        synchronize(device)
        best = max(best, 2 * side**3 / (clock() - started))
    return best, f"{best / 1e9:,.0f} GFLOP/s of a matrix product"


@dataclass(frozen=True)
class Figures:
    """The medians of a setting.

    Attributes:
        tokens: tokens per second.
        mfu: model FLOPs utilization, from 0 to 1.
        memory: peak of the GPU's memory in bytes; 0 on a CPU.
    """

    setting: Setting
    tokens: float
    mfu: float
    memory: float


def measure(settings: Sequence[Setting], size: Size, device: str, peak: float) -> list[Figures]:
    """Measure the settings in turns, so that other load on the machine affects all of them.

    Settings that need more memory than the device has are left out.
    """
    runs: dict[str, list[tuple[float, float]]] = {setting.name: [] for setting in settings}
    out_of_memory: set[str] = set()
    for turn in range(size.rounds):
        for setting in settings:
            if setting.name in out_of_memory:
                continue
            try:
                runs[setting.name].append(run(setting, size, device))
                rate = f"{runs[setting.name][-1][0]:,.0f} tokens/s"
            except torch.OutOfMemoryError:
                out_of_memory.add(setting.name)
                rate = "out of memory"
            print(f"round {turn + 1}, {setting.name}: {rate}", file=sys.stderr, flush=True)
            release(device)
    figures = []
    for setting in settings:
        if setting.name not in out_of_memory:
            tokens, memory = (statistics.median(values) for values in zip(*runs[setting.name]))
            mfu = tokens * flops_per_token(setting, size) / peak
            figures.append(Figures(setting, tokens, mfu, memory))
    return figures


def rename(figures: Figures, name: str) -> Figures:
    return replace(figures, setting=replace(figures.setting, name=name))


def rows_of(results: Sequence[Figures], size: Size) -> Iterator[Row]:
    """Compare our recipes with the tutorials' recipe, and the best one with the goal, if there is one."""
    peers = [figures for figures in results if figures.setting.recipe is None]
    our_figures = [figures for figures in results if figures.setting.recipe is not None]
    fastest = rename(max(our_figures, key=lambda figures: figures.tokens), "best")
    for figures in [*our_figures, fastest]:
        name = figures.setting.name
        for peer in peers:
            peer_name = peer.setting.name
            times = (1e6 / figures.tokens, 1e6 / peer.tokens)
            limit = size.limits.get((name, peer_name))
            yield Row(f"{name}, time", "µs/token", *times, peer_name, limit)
            if figures.memory and figures is not fastest:
                memory = (figures.memory / 1e9, peer.memory / 1e9)
                yield Row(f"{name}, memory", "GB", *memory, peer_name)
    if GOAL in size.limits:
        best = max(our_figures, key=lambda figures: figures.mfu)
        microseconds = 1e6 / best.tokens
        times = (microseconds, microseconds * best.mfu / GOAL_MFU)
        yield Row("best, MFU", "µs/token", *times, f"MFU of {GOAL_MFU:.0%}", size.limits[GOAL])


def print_settings(results: Sequence[Figures], device: str) -> None:
    name = torch.cuda.get_device_name() if device != "cpu" else "one CPU thread (CPU time)"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{time.strftime('%Y-%m-%d')}, {name}, Python {platform.python_version()}, {versions}\n")
    print(
        "| recipe | attention | rows x accumulation | checkpointing | tokens/s | MFU | peak memory |"
    )
    print("|---|---|---|---|---|---|---|")
    for figures in results:
        setting = figures.setting
        memory = f"{figures.memory / 1e9:.0f} GB" if figures.memory else "–"
        print(
            f"| {setting.name} | {setting.attention} | {setting.rows} x {setting.accumulation} "
            f"| {'yes' if setting.checkpointing else 'no'} | {figures.tokens:,.0f} "
            f"| {figures.mfu:.0%} | {memory} |"
        )
    print()
    print()


def settings_of(device: str, attention: str | None = None) -> list[Setting]:
    """Return the tutorials' recipe, and each of our recipes with and without gradient checkpointing.

    On a CPU, our recipes compute in float32, even if the CPU has instructions for bf16. Therefore the
    tutorials' recipe is also measured in float32 there.
    """
    recipes = [ours(name, device) for name in ("full", "lora")]
    if attention is not None:
        recipes = [replace(recipe, attention=attention) for recipe in recipes]
    without_checkpointing = [
        replace(recipe, name=f"{recipe.name}, no checkpointing", checkpointing=False)
        for recipe in recipes
        if recipe.checkpointing
    ]
    peers = [tutorials()]
    if device == "cpu":
        peers.append(replace(peers[0], name=TUTORIALS_FLOAT32, dtype=torch.float32))
    return [*peers, *recipes, *without_checkpointing]


def main(arguments: list[str] | None = None, size: Size | None = None, device: str = "cuda") -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--config",
        choices=SIZES,
        default="phi-3-mini",
        help="size of the model (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        choices=["cuda", "cpu"],
        default=device,
        help="device to train on (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    parser.add_argument(
        "--attention",
        help="attention of our recipes, for example flex_attention (default: the recipe's)",
    )
    parser.add_argument(
        "--rounds", type=int, help="runs of each recipe (default: that of the size)"
    )
    parser.add_argument(
        "--seconds", type=float, help="duration of a run (default: that of the size)"
    )
    args = parser.parse_args(arguments)
    device, size = args.device, size or SIZES[args.config]
    size = replace(size, rounds=args.rounds or size.rounds, seconds=args.seconds or size.seconds)
    rows: list[Row] = []
    if device == "cuda" and not torch.cuda.is_available():
        print("no NVIDIA GPU was found; use train_cpu.py to measure a small model on the CPU")
    else:
        if device == "cpu":
            torch.set_num_threads(1)
        peak, source = peak_flops(device)
        results = measure(settings_of(device, args.attention), size, device, peak)
        rows += rows_of(results, size)
        print(f"MFU is relative to {source}; rows have {size.sequence} tokens")
        print_settings(results, device)
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
