"""Measures the speed of training a small model on one CPU thread: our recipes and the tutorials' recipe.

    python tests/benchmarks/train_cpu.py --json bench/train_cpu.json

The model has random weights, so no network is needed. train_gpu.py measures train.py itself, with a
model of Phi-3-mini's size on a GPU; here, the steps of the recipes run in this process, so that the
thread's CPU time can be measured, which other load on the machine hardly changes.

The tutorials' recipe has weights and AdamW's states in bf16, eager attention, gradient
checkpointing, 4 sequences per step, and computes the loss from the logits of all tokens. Our
recipes are recipes/full.yaml and recipes/lora.yaml, each with and without gradient checkpointing:
float32 weights, documents that do not attend to each other, and the fused optimizer. The tutorials'
recipe is also measured in float32, since our recipes compute in float32 on a CPU, even if it has
instructions for bf16. `chunked_loss` (tests/support/training_speed.py) replaces TRL's fused head; it
computes parts of the forward pass again, and TRL's head is not slower. All recipes train rows of the
same length without padding, and every token counts for the loss, although our recipes leave out the
questions, which saves part of the head.

In each round, every recipe runs once with a new model. The results are the medians of the rounds.

Model FLOPs utilization (MFU) does not count recomputation, as in "PaLM: Scaling Language Modeling
with Pathways", appendix B. For each token, a matrix needs 2 operations per weight in the forward
pass, 2 for the gradients of its inputs, and 2 for the gradients of its weights if they are trained.
Attention needs 4 operations in the forward pass and 8 in the backward pass per layer, channel and
earlier token that is attended to. MFU is relative to the largest measured rate of a square float32
matrix product.

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
    Setting,
    Size,
    documents,
    ours,
    release,
    run,
    tutorials,
)

DEVICE = "cpu"
TUTORIALS_FLOAT32 = "the same in float32"
SIZE = Size(
    # As in Phi-3-mini: the head's share of the weights, and 64 channels per attention head.
    shape={
        "vocab_size": 1024,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
        "original_max_position_embeddings": 256,
    },
    sequence=256,
    seconds=2,
    rounds=3,
    limits={("best", TUTORIALS_FLOAT32): 1.0},
)


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


def peak_flops(side: int = 1024) -> float:
    """Return the largest measured rate of a square float32 matrix product, in operations per second."""
    square = torch.randn(side, side)
    best = 0.0
    for _ in range(8):
        started = time.process_time()
        square @ square
        best = max(best, 2 * side**3 / (time.process_time() - started))
    return best


@dataclass(frozen=True)
class Figures:
    """The medians of a setting.

    Attributes:
        tokens: tokens per second.
        mfu: model FLOPs utilization, from 0 to 1.
    """

    setting: Setting
    tokens: float
    mfu: float


def measure(settings: Sequence[Setting], size: Size, peak: float) -> list[Figures]:
    """Measure the settings in turns, so that other load on the machine affects all of them."""
    runs: dict[str, list[float]] = {setting.name: [] for setting in settings}
    for turn in range(size.rounds):
        for setting in settings:
            tokens, _ = run(setting, size, DEVICE)
            runs[setting.name].append(tokens)
            print(f"round {turn + 1}, {setting.name}: {tokens:,.0f} tokens/s", file=sys.stderr)
            release(DEVICE)
    figures = []
    for setting in settings:
        tokens = statistics.median(runs[setting.name])
        figures.append(Figures(setting, tokens, tokens * flops_per_token(setting, size) / peak))
    return figures


def rename(figures: Figures, name: str) -> Figures:
    return replace(figures, setting=replace(figures.setting, name=name))


def rows_of(results: Sequence[Figures], size: Size) -> Iterator[Row]:
    """Compare our recipes, and the best one, with the tutorials' recipe."""
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


def print_settings(results: Sequence[Figures]) -> None:
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(
        f"{time.strftime('%Y-%m-%d')}, one CPU thread (CPU time), Python "
        f"{platform.python_version()}, {versions}\n"
    )
    print("| recipe | attention | rows x accumulation | checkpointing | tokens/s | MFU |")
    print("|---|---|---|---|---|---|")
    for figures in results:
        setting = figures.setting
        print(
            f"| {setting.name} | {setting.attention} | {setting.rows} x {setting.accumulation} "
            f"| {'yes' if setting.checkpointing else 'no'} | {figures.tokens:,.0f} "
            f"| {figures.mfu:.0%} |"
        )
    print()


def settings_of() -> list[Setting]:
    """Return the tutorials' recipe, and each of our recipes with and without gradient checkpointing."""
    recipes = [ours(name, DEVICE) for name in ("full", "lora")]
    without_checkpointing = [
        replace(recipe, name=f"{recipe.name}, no checkpointing", checkpointing=False)
        for recipe in recipes
        if recipe.checkpointing
    ]
    peers = [tutorials(), replace(tutorials(), name=TUTORIALS_FLOAT32, dtype=torch.float32)]
    return [*peers, *recipes, *without_checkpointing]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    parser.add_argument(
        "--rounds", type=int, default=SIZE.rounds, help="runs of each recipe (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=SIZE.seconds,
        help="duration of a run (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    size = replace(SIZE, rounds=args.rounds, seconds=args.seconds)
    torch.set_num_threads(1)
    peak = peak_flops()
    results = measure(settings_of(), size, peak)
    print(
        f"MFU is relative to {peak / 1e9:,.0f} GFLOP/s of a matrix product; "
        f"rows have {size.sequence} tokens"
    )
    print_settings(results)
    return report(list(rows_of(results, size)), args.json)


if __name__ == "__main__":
    sys.exit(main())
