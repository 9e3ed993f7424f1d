"""The estimate of a training before it runs: train.py makes it, and a table shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from .. import paths
from ..errors import OpsError
from ..models import is_converted_here, resolve_model
from .local import base_model_of, default_recipe, recipe_file

PARTS = ("framework", "weights", "gradients", "optimizer", "activations", "peak")
TITLES = {
    "framework": "libraries or CUDA",
    "activations": "activations and logits",
    "peak": "peak",
    "optimizer": "optimizer's states",
}


def estimate_training(
    train_file: Path,
    eval_file: Path,
    *,
    recipe: str | None = None,
    model: str | None = None,
    machine: str | None = None,
    hourly_price: float | None = None,
    more_train_files: Sequence[Path] = (),
    extra: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the memory, time and price of a training; docs/training.md describes the fields.

    Args:
        train_file, eval_file: rows to train on, and to measure the loss on.
        recipe: name of a shipped recipe, or a YAML file; None takes that of `default_recipe`.
        model: short name, GGUF file, folder or hub id of the base model; None takes the recipe's.
        machine: size of Azure or card; None for this machine.
        hourly_price: price of the machine per hour, or None if it is not known.
        more_train_files: further rows to train on, which the recipe's `mixture` weighs.
        extra: further arguments of train.py.

    Raises:
        OpsError: a file does not exist, or train.py failed.
    """
    recipe = recipe or default_recipe(model)
    train_files = (train_file, *more_train_files)
    for file in (*train_files, eval_file):
        if not file.is_file():
            raise OpsError(f"{file} does not exist", "Make the data with `phi3 data`.")
    base_model = base_model_of(recipe, model)
    if model or is_converted_here(base_model):
        extra = ["--model", resolve_model(base_model).as_posix(), *extra]
    command = [sys.executable, str(paths.TRAINING / "train.py"), "--estimate"]
    command += ["--recipe", str(recipe_file(recipe)), "--output-dir", str(paths.WORKDIR / "model")]
    command += [word for file in train_files for word in ("--train-file", str(file))]
    command += ["--eval-file", str(eval_file), *extra]
    if machine:
        command += ["--machine", machine]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise OpsError("the estimate failed", "The reason is printed above.")
    estimate: dict[str, Any] = json.loads(done.stdout)
    for part in (estimate, *estimate["alternatives"]):
        part["price"] = _price(part["seconds"], hourly_price)
    return estimate


def _price(seconds: float | None, hourly_price: float | None) -> float | None:
    if seconds is None or hourly_price is None:
        return None
    return round(seconds / 3600 * hourly_price, 2)


def estimate_table(estimate: Mapping[str, Any]) -> Table:
    """Return a table of the parts of the memory, the time and the price."""
    machine = estimate["machine"]
    title = f"{estimate['recipe']} on {machine['name']}, estimated"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    counts = f"{estimate['trained_parameters']:,} of {estimate['parameters']:,}"
    table.add_row("trained parameters", counts, end_section=True)
    for part in PARTS:
        table.add_row(TITLES.get(part, part), f"{estimate['memory_gb'][part]:,.2f} GB")
    verdict = "fits" if estimate["fits"] else "does not fit"
    table.add_row("memory of the machine", f"{machine['memory_gb']:,.0f} GB: {verdict}")
    table.add_section()
    table.add_row("steps", f"{estimate['steps']:,}")
    table.add_row("time", _duration(estimate["seconds"]))
    price = estimate["price"]
    table.add_row("price", "unknown" if price is None else f"{price:,.2f}")
    return table


def describe_alternatives(estimate: Mapping[str, Any]) -> list[str]:
    """Return one line for each change with which the training fits."""
    if not estimate["fits"] and not estimate["alternatives"]:
        return ["nothing that was tried fits: use a smaller model"]
    return [
        f"fits with {part['change']}: {part['memory_gb']['peak']:,.2f} GB, {_duration(part['seconds'])}"
        for part in estimate["alternatives"]
    ]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"about {seconds:,.0f} s"
    return f"about {seconds / 60:,.0f} min" if seconds < 5400 else f"about {seconds / 3600:,.1f} h"
