"""`phi3 finetune`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import paths
from ._common import add_config, add_dry_run, positive, whole


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Fine-tune a model: as a job on Azure ML, or with --local on this machine."
    parser.add_argument("--local", action="store_true", help="train on this machine")
    parser.add_argument(
        "--train-file",
        type=Path,
        metavar="FILE",
        help="rows to train on (default: .phi3/data/train.jsonl, or the configuration's)",
    )
    parser.add_argument(
        "--eval-file",
        type=Path,
        metavar="FILE",
        help="rows to measure the loss on (default: .phi3/data/test.jsonl, or the configuration's)",
    )
    parser.add_argument("--recipe", help="a shipped recipe's name, or a YAML file")
    parser.add_argument(
        "--model", metavar="FOLDER_OR_ID", help="model to train, in place of the recipe's"
    )
    parser.add_argument("--epochs", type=positive, help="epochs, in place of the recipe's")
    parser.add_argument("--rows", type=whole, metavar="N", help="use the first N rows of each file")
    local = parser.add_argument_group("with --local")
    local.add_argument(
        "--output-dir",
        type=Path,
        default=paths.WORKDIR / "model",
        metavar="DIR",
        help="gets model/, mlflow/, metrics.json and more (default: %(default)s)",
    )
    local.add_argument("--seed", type=int, help="in place of the recipe's")
    local.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint, if there is one"
    )
    local.add_argument(
        "--processes", type=whole, default=1, metavar="N", help="that train together, one a GPU"
    )
    azure = parser.add_argument_group("on Azure")
    add_config(azure)
    add_dry_run(azure)
    azure.add_argument("--follow", action="store_true", help="print the job's log until it ends")
    azure.add_argument("--cpu", action="store_true", help="the image without GPU libraries")
    azure.add_argument(
        "--instances", type=whole, metavar="N", help="nodes, whose GPUs all train together"
    )
    azure.add_argument(
        "--catalog",
        action="store_true",
        help="the model catalog's own chat-completion fine-tuning in place of this package's job",
    )
    azure.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="with --catalog: an advanced setting, such as learning_rate=2e-5",
    )


def run(args: argparse.Namespace) -> int:
    return _local(args) if args.local else _azure(args)


def _local(args: argparse.Namespace) -> int:
    from rich.console import Console

    from ..training import DEFAULT_RECIPE, base_and_tuned_table, finetune_locally

    data = paths.WORKDIR / "data"
    names = ("model", "epochs", "rows", "seed")
    given = {f"--{name}": getattr(args, name) for name in names}
    extra = [
        word for name, value in given.items() if value is not None for word in (name, str(value))
    ]
    extra += [f"--{name}" for name in ("resume", "verbose") if getattr(args, name)]
    metrics = finetune_locally(
        args.train_file or data / "train.jsonl",
        args.eval_file or data / "test.jsonl",
        args.output_dir,
        recipe=args.recipe or DEFAULT_RECIPE,
        processes=args.processes,
        extra=extra,
    )
    print(f"loss {metrics['train_loss']:.3f} after {metrics['steps']} steps, in {args.output_dir}")
    Console().print(base_and_tuned_table(args.output_dir, metrics))
    return 0


def _azure(args: argparse.Namespace) -> int:
    from rich.console import Console

    from ..azure import Cloud, load_config, named_errors
    from ..training import CatalogSubmission, JobRequest, JobSubmission, catalog_settings

    cloud = Cloud(load_config(args.config))
    wanted = cloud.config.finetune
    request = JobRequest(
        train_file=args.train_file or wanted.train_file,
        eval_file=args.eval_file or wanted.eval_file,
        recipe=args.recipe or wanted.recipe,
        model=args.model or wanted.model,
        cpu=args.cpu,
        rows=args.rows,
        epochs=args.epochs,
        instances=args.instances or wanted.instances,
    )
    with named_errors("finetune"):
        if args.catalog:
            submission: JobSubmission = CatalogSubmission(
                cloud, request, catalog_settings(args.set)
            )
        else:
            submission = JobSubmission(cloud, request)
        submission.plan().run(Console(), dry_run=args.dry_run)
        if not args.dry_run:
            print(f"job {submission.name}")
            if args.follow:
                submission.follow()
    return 0
