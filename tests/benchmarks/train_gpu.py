"""Measures the speed of training on one NVIDIA GPU: train.py, TRL's script and the tutorials' recipe.

    python tests/benchmarks/train_gpu.py --json bench/train_gpu.json

The model has the true size of Phi-3-mini and random weights, which are written to the disk once, so
no network is needed. The disk needs 80 GB of free space; --folder chooses it. Each line of the table is
a child process:

- "full" and "lora": the product's own train.py with recipes/full.yaml and recipes/lora.yaml, each with
  and without gradient checkpointing. The figures are those of its metrics.json.
- "TRL": TRL's plain script, trl/scripts/sft.py of the installed package, on the same rows. Batch,
  packing, checkpointing, optimizer, loss, adapters and data types are those of the product's line with
  the same name, so that full is compared with full and LoRA with LoRA.
- "tutorials' recipe": the same script with the settings of the tutorials' fine_tune.py.
- "Unsloth": left out where it is not installed, and the table says so.

The speed is that of the steps after the first one. The first step loads kernels, and is a large part
of so few steps. The time between two steps, for rows and logs, is in the figures of TRL's script and not
in those of train.py; on a GPU it is milliseconds of a step of seconds. MFU does not count recomputation.
train.py reports it, and the other lines have that of the product's line with the same weights, in
proportion to their tokens per second.

`--device cpu --config tiny` shows on any machine that the benchmark runs to its end; its figures say
nothing. train_cpu.py measures a small model on the CPU.

Exits with 1 if a limit is missed. A run that needs more memory than the GPU has is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from bench_rows import Row, report  # noqa: E402
from training_children import (  # noqa: E402
    ChildError,
    Size,
    Speed,
    make_inputs,
    options_like,
    read_recipe,
    run_product,
    run_sft_script,
    tutorials_options,
)

TUTORIALS = "tutorials' recipe"
GOAL_MFU = 0.45
GOAL = ("best", "MFU")
BYTES_ON_DISK = 80 * 10**9
WITHOUT_CHECKPOINTING = ", no checkpointing"
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
TINY_SHAPE = PHI3_MINI | {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
# The goals: three times the tokens per second of the tutorials' recipe, 45 % of the peak, and not
# slower than TRL's script with the same settings.
LIMITS = {
    ("best", TUTORIALS): 1 / 3,
    GOAL: 1.0,
    ("full", "TRL full"): 1.0,
    ("lora", "TRL lora"): 1.0,
}
SIZES = {
    "phi-3-mini": Size(PHI3_MINI, 2048, steps=6, limits=LIMITS),
    "tiny": Size(TINY_SHAPE, 64, steps=3, limits={}),
}


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        name: a recipe of the product, or the peer's name.
        run: trains in a child process.
        peer_of: the product's line that trains the same weights with the same settings, or None.
        like: the product's line that trains the same weights.
    """

    name: str
    run: Callable[[Path, Size, str], Speed]
    peer_of: str | None = None
    like: str | None = None


def lines_of(device: str) -> list[Line]:
    """Return the lines of the table, in their order."""
    lines = [Line(TUTORIALS, partial(run_sft_script, tutorials_options()), like="full")]
    for name in ("full", "lora"):
        file_has_checkpointing = read_recipe(name)["trainer"]["gradient_checkpointing"]
        variants = [(name, file_has_checkpointing)]
        if file_has_checkpointing and device != "cpu":
            variants.append((name + WITHOUT_CHECKPOINTING, False))
        for variant, checkpointing in variants:
            recipe = read_recipe(name, checkpointing)
            options = options_like(recipe, device)
            lines.append(Line(variant, partial(run_product, recipe)))
            peer = partial(run_sft_script, options)
            lines.append(Line(f"TRL {variant}", peer, peer_of=variant, like=variant))
    return lines


def measure(lines: list[Line], size: Size, device: str, folder: Path) -> dict[str, Speed]:
    """Return name -> speed of each line; lines that need too much memory are left out.

    Raises:
        ChildError: a child process failed for another reason.
    """
    speeds: dict[str, Speed] = {}
    for line in lines:
        try:
            speeds[line.name] = line.run(folder, size, device)
            message = f"{speeds[line.name].tokens:,.0f} tokens/s"
        except ChildError as error:
            if "out of memory" not in str(error):
                raise
            message = "out of memory"
        print(f"{line.name}: {message}", file=sys.stderr, flush=True)
        shutil.rmtree(folder / "out", ignore_errors=True)
    return speeds


def mfu_of(line: Line, speeds: Mapping[str, Speed]) -> float | None:
    """Return a line's MFU, which is in proportion to that of train.py with the same weights."""
    if line.like is None:
        return speeds[line.name].mfu
    product = speeds.get(line.like)
    if product is None or product.mfu is None:
        return None
    return product.mfu * speeds[line.name].tokens / product.tokens


def rows_of(lines: list[Line], speeds: Mapping[str, Speed], size: Size) -> Iterator[Row]:
    """Compare each of the product's lines with its peer, and the best one with the tutorials."""

    def row(name: str, tokens: float, peer: str) -> Row:
        times = (1e6 / tokens, 1e6 / speeds[peer].tokens)
        return Row(f"{name}, time", "µs/token", *times, peer, size.limits.get((name, peer)))

    for line in lines:
        if line.peer_of in speeds and line.name in speeds:
            yield row(line.peer_of, speeds[line.peer_of].tokens, line.name)
    products = [speeds[line.name] for line in lines if line.like is None and line.name in speeds]
    if TUTORIALS in speeds and products:
        yield row("best", max(speed.tokens for speed in products), TUTORIALS)
        if "full" in speeds:  # all weights in both
            yield row("full", speeds["full"].tokens, TUTORIALS)
    measured = [(speed.mfu, speed.tokens) for speed in products if speed.mfu is not None]
    if GOAL in size.limits and measured:
        mfu, tokens = max(measured)
        times = (1e6 / tokens, 1e6 / tokens * mfu / GOAL_MFU)
        yield Row("best, MFU", "µs/token", *times, f"MFU of {GOAL_MFU:.0%}", size.limits[GOAL])


def print_table(lines: list[Line], speeds: Mapping[str, Speed], size: Size, device: str) -> None:
    name = torch.cuda.get_device_name() if device != "cpu" else "one CPU thread"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))
    print(f"{time.strftime('%Y-%m-%d')}, {name}, Python {platform.python_version()}, {packages}")
    print(f"sequences of {size.sequence} tokens, {size.steps - 1} measured steps\n")
    print("| recipe | tokens/s | MFU | peak memory |\n|---|---|---|---|")
    for line in lines:
        speed = speeds.get(line.name)
        if speed is None:
            print(f"| {line.name} | out of memory | – | – |")
            continue
        mfu = mfu_of(line, speeds)
        memory = "–" if speed.memory is None else f"{speed.memory:.1f} GB"
        print(f"| {line.name} | {speed.tokens:,.0f} | {mfu and f'{mfu:.0%}' or '–'} | {memory} |")
    print(f"| Unsloth, lora | {unsloth_note()} | – | – |\n")


def unsloth_note() -> str:
    """Return why the table has no figures of Unsloth."""
    if importlib.util.find_spec("unsloth") is None:
        return "left out: unsloth is not installed"
    return "left out: the package unsloth has no script that this benchmark could run"


def main(arguments: list[str] | None = None) -> int:
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
        default="cuda",
        help="device to train on (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder for the model and the results, which are removed at the end (default: that of "
        "temporary files)",
    )
    args = parser.parse_args(arguments)
    size, rows = SIZES[args.config], list[Row]()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no NVIDIA GPU was found; use train_cpu.py to measure a small model on the CPU")
        return report(rows, args.json)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        free = shutil.disk_usage(name).free
        if args.config == "phi-3-mini" and free < BYTES_ON_DISK:
            parser.error(f"{name} has {free / 1e9:.0f} GB of free space, not 80: use --folder")
        make_inputs(Path(name), size, args.device)
        lines = lines_of(args.device)
        try:
            speeds = measure(lines, size, args.device, Path(name))
        except ChildError as error:
            print(error, file=sys.stderr)
            return 1
    rows += rows_of(lines, speeds, size)
    print_table(lines, speeds, size, args.device)
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
