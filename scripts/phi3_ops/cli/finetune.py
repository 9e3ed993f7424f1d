"""`phi3 finetune`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import paths
from ._common import positive


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--local", action="store_true", required=True, help="train on this machine")
    data = paths.WORKDIR / "data"
    parser.add_argument(
        "--train-file",
        type=Path,
        default=data / "train.jsonl",
        metavar="FILE",
        help="rows to train on (default: %(default)s)",
    )
    parser.add_argument(
        "--eval-file",
        type=Path,
        default=data / "test.jsonl",
        metavar="FILE",
        help="rows to measure the loss on (default: %(default)s)",
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=paths.WORKDIR / "model",
        metavar="DIR",
        help="gets model/, mlflow/ and metrics.json (default: %(default)s)",
    )
    parser.add_argument(
        "--recipe",
        default="tiny-cpu",
        help="a shipped recipe's name, or a YAML file (default: %(default)s)",
    )
    parser.add_argument(
        "--model", metavar="FOLDER_OR_ID", help="model to train, in place of the recipe's"
    )
    parser.add_argument("--epochs", type=positive, help="epochs, in place of the recipe's")
    parser.add_argument("--seed", type=int, help="in place of the recipe's")


def run(args: argparse.Namespace) -> int:
    from .. import finetune

    given = {"--model": args.model, "--epochs": args.epochs, "--seed": args.seed}
    extra = [
        word for name, value in given.items() if value is not None for word in (name, str(value))
    ]
    extra += ["--verbose"] if args.verbose else []
    metrics = finetune.local(
        args.train_file, args.eval_file, args.output_dir, recipe=args.recipe, extra=extra
    )
    print(f"loss {metrics['train_loss']:.3f} after {metrics['steps']} steps, in {args.output_dir}")
    return 0
