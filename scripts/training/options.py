"""train.py's command line."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from inputs import MODELS, Recipe, resolve_model


def parse(arguments: list[str] | None, description: str) -> argparse.Namespace:
    """Read the command line; ends with 2 for a wrong one."""
    parser = argparse.ArgumentParser(description=description, prog="train.py")
    parser.add_argument(
        "--recipe", type=Path, required=True, help="YAML, such as recipes/lora.yaml"
    )
    parser.add_argument("--train-file", type=Path, required=True, help="JSONL with `messages`")
    parser.add_argument("--eval-file", type=Path, required=True, help="JSONL, for the eval loss")
    parser.add_argument("--output-dir", type=Path, required=True, help="gets model/, mlflow/, …")
    parser.add_argument(
        "--model", help=f"instead of the recipe's: {', '.join(MODELS)}, a folder or a hub id"
    )
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--epochs", type=_positive(float), help="instead of the recipe's")
    parser.add_argument("--rows", type=_positive(int), help="use the first N rows of each file")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint, if there is one"
    )
    parser.add_argument(
        "--checkpoint-dir",
        type=Path,
        help="where they lie (default: checkpoints/ in the output folder); with several machines, a "
        "folder that all of them see",
    )
    parser.add_argument(
        "--show-mask",
        action="store_true",
        help="print the first row's tokens and which are trained on, then end",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="the libraries' messages, tracebacks"
    )
    args = parser.parse_args(arguments)
    args.checkpoint_dir = args.checkpoint_dir or args.output_dir / "checkpoints"
    return args


def _positive(kind: type) -> Any:
    def convert(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return convert


def override(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with what the command line says otherwise."""
    trainer = dict(recipe.trainer)
    if args.epochs is not None:
        trainer["num_train_epochs"] = args.epochs
    model = recipe.model if args.model is None else resolve_model(args.model)
    seed = recipe.seed if args.seed is None else args.seed
    return replace(recipe, trainer=trainer, model=model, seed=seed)
