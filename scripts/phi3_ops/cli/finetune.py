"""`phi3 finetune`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..errors import OpsError
from ..progress import waiting
from ..terminal import console, print_text
from ._common import add_config, add_dry_run, integer, positive_int, positive_number
from ._next_step import after_job, after_training
from ._records import messages_to_stderr

if TYPE_CHECKING:
    from ..azure import Cloud
    from ..training import Submission, TrainingMetrics


LOCAL, JOB, CATALOG = "--local", "a training job on Azure ML", "--catalog"
ESTIMATE = "--estimate"
OUTPUT_DIR = paths.WORKDIR / "model"
USUAL_START = "5 to 10 min until it starts, with a new image 20 to 40 min"
# Options that some ways of training ignore -> their value if left out, and the ways that use them.
PARTIAL_OPTIONS: dict[str, tuple[object, tuple[str, ...]]] = {
    "recipe": (None, (LOCAL, JOB, ESTIMATE)),
    "epochs": (None, (LOCAL, JOB, ESTIMATE)),
    "rows": (None, (LOCAL, JOB, ESTIMATE)),
    "output_dir": (OUTPUT_DIR, (LOCAL,)),
    "general_file": (None, (LOCAL,)),
    "seed": (None, (LOCAL,)),
    "start_from": (None, (LOCAL,)),
    "merge": (None, (LOCAL,)),
    "resume": (False, (LOCAL,)),
    "processes": (1, (LOCAL,)),
    "json": (False, (LOCAL, ESTIMATE)),
    "machine": (None, (ESTIMATE,)),
    "hourly_price": (None, (ESTIMATE,)),
    "config": (None, (JOB, CATALOG)),
    "dry_run": (False, (JOB, CATALOG)),
    "follow": (False, (JOB, CATALOG)),
    "cpu": (False, (JOB,)),
    "instances": (None, (JOB,)),
    "catalog": (False, (CATALOG,)),
    "set": ([], (CATALOG,)),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Fine-tune a model: as a job on Azure ML, or with --local on this machine."
    parser.add_argument("--local", action="store_true", help="train on this machine")
    parser.add_argument(
        "--train-file",
        type=Path,
        action="append",
        metavar="FILE",
        help="rows to train on (default: .phi3/data/train.jsonl, or the configuration's file); with "
        "--local, several options give several files, which the recipe's `mixture` weighs",
    )
    parser.add_argument(
        "--eval-file",
        type=Path,
        metavar="FILE",
        help="rows to measure the loss on (default: .phi3/data/test.jsonl, or the configuration's "
        "file)",
    )
    parser.add_argument(
        "--recipe",
        help="name of a shipped recipe, or a YAML file (default with --local: tiny-cpu, or smollm2-cpu "
        "for smollm2 and GGUF files)",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="model to train, in place of the recipe's: smollm2, phi-3.5-mini or another short name, "
        "a hub id, a folder or a GGUF file",
    )
    parser.add_argument(
        "--epochs", type=positive_number, help="number of epochs, in place of the recipe's"
    )
    parser.add_argument(
        "--rows", type=positive_int, metavar="N", help="use the first N rows of each file"
    )
    _add_local_options(parser.add_argument_group("with --local"))
    _add_azure_options(parser.add_argument_group("on Azure"))
    _add_estimate_options(parser.add_argument_group("estimate"))


def _add_local_options(local: argparse._ArgumentGroup) -> None:
    local.add_argument(
        "--output-dir",
        type=Path,
        default=OUTPUT_DIR,
        metavar="DIR",
        help="folder for model/, mlflow/, adapter/, metrics.json and more (default: %(default)s)",
    )
    local.add_argument(
        "--general-file",
        type=Path,
        metavar="FILE",
        help="chats unlike the rows; their loss and answers before and after the training show what the "
        "model forgot",
    )
    local.add_argument(
        "--from",
        dest="start_from",
        type=Path,
        metavar="DIR",
        help="start from the result of an earlier run: its output folder, a model folder or an adapter "
        "folder, which is trained further on the base that it was trained on",
    )
    local.add_argument(
        "--merge",
        choices=("yes", "no"),
        help="whether the adapters are merged into the base, for model/ and mlflow/ (default: the "
        "recipe's, which is yes); adapter/ is written in both cases",
    )
    local.add_argument("--seed", type=integer, help="random seed, in place of the recipe's")
    local.add_argument(
        "--resume", action="store_true", help="resume from the last checkpoint if there is one"
    )
    local.add_argument(
        "--processes",
        type=positive_int,
        default=1,
        metavar="N",
        help="number of training processes, one per GPU (default: %(default)s)",
    )
    local.add_argument(
        "--json",
        action="store_true",
        help="print the content of metrics.json, or with --estimate the estimate, instead of a table",
    )


def _add_estimate_options(estimate: argparse._ArgumentGroup) -> None:
    estimate.add_argument(
        "--estimate",
        action="store_true",
        help="print the memory, the time and the price of the training and do not train; if it does not "
        "fit, print what would",
    )
    estimate.add_argument(
        "--machine",
        metavar="NAME",
        help="size of Azure or card, such as Standard_NC24ads_A100_v4 or H100 (default: this machine)",
    )
    estimate.add_argument(
        "--hourly-price",
        type=positive_number,
        metavar="PRICE",
        help="price of the machine per hour; without it, the price of the training is unknown",
    )


def _add_azure_options(azure: argparse._ArgumentGroup) -> None:
    add_config(azure)
    add_dry_run(azure)
    azure.add_argument("--follow", action="store_true", help="print the job's log until it ends")
    azure.add_argument("--cpu", action="store_true", help="use the image without GPU libraries")
    azure.add_argument(
        "--instances",
        type=positive_int,
        metavar="N",
        help="number of nodes, whose GPUs all train the same model",
    )
    azure.add_argument(
        "--catalog",
        action="store_true",
        help="use the model catalog's own chat-completion fine-tuning instead of this package's job",
    )
    azure.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="with --catalog: an advanced setting, such as learning_rate=2e-5",
    )


def run(args: argparse.Namespace) -> int:
    if problem := _unused_option(args):
        print_text(f"phi3 finetune: {problem}; see phi3 finetune --help", to_stderr=True)
        return 2
    if args.estimate:
        return _estimate(args)
    return _train_here(args) if args.local else _azure(args)


def _unused_option(args: argparse.Namespace) -> str | None:
    """Return what is wrong with an option that this way of training would ignore, or None."""
    way = LOCAL if args.local else CATALOG if args.catalog else JOB
    way = ESTIMATE if args.estimate else way
    for name, (default, ways) in PARTIAL_OPTIONS.items():
        if getattr(args, name) != default and way not in ways:
            option = "--from" if name == "start_from" else f"--{name.replace('_', '-')}"
            return f"{option} has no effect with {way}; it is for {' and '.join(ways)}"
    if way in (JOB, CATALOG) and len(args.train_file or ()) > 1:
        return f"a second --train-file has no effect with {way}; it is for {LOCAL} and {ESTIMATE}"
    return None


def _estimate(args: argparse.Namespace) -> int:
    from ..training import describe_alternatives, estimate_table, estimate_training

    data = paths.WORKDIR / "data"
    train_file, *more_train_files = args.train_file or [data / "train.jsonl"]
    values = (("--epochs", args.epochs), ("--rows", args.rows))
    with waiting(console(), "estimating the training"):
        estimate = estimate_training(
            train_file,
            args.eval_file or data / "test.jsonl",
            recipe=args.recipe,
            model=args.model,
            machine=args.machine,
            hourly_price=args.hourly_price,
            more_train_files=more_train_files,
            extra=[word for name, value in values if value for word in (name, str(value))],
        )
    if args.json:
        print_text(json.dumps(estimate, indent=2))
        return 0
    console().print(estimate_table(estimate))
    for line in [*describe_alternatives(estimate), *estimate["notes"]]:
        print_text(line)
    return 0


def _train_here(args: argparse.Namespace) -> int:
    from ..training import METRICS_FILE, base_and_tuned_table

    with messages_to_stderr(args.json):
        metrics = _finetune(args)
    if args.json:
        content = json.loads((args.output_dir / METRICS_FILE).read_text(encoding="utf-8"))
        print_text(json.dumps(content, indent=2))
        return 0
    print_text(
        f"loss {metrics.last_train_loss:.3f} after {metrics.steps} steps, in {args.output_dir}"
    )
    console().print(base_and_tuned_table(args.output_dir, metrics))
    after_training(args.output_dir)
    return 0


def _finetune(args: argparse.Namespace) -> TrainingMetrics:
    from ..training import finetune_locally

    data = paths.WORKDIR / "data"
    options = {f"--{name}": getattr(args, name) for name in ("epochs", "rows", "seed", "merge")}
    extra = [
        word for name, value in options.items() if value is not None for word in (name, str(value))
    ]
    extra += [f"--{name}" for name in ("resume", "verbose") if getattr(args, name)]
    train_file, *more_train_files = args.train_file or [data / "train.jsonl"]
    return finetune_locally(
        train_file,
        args.eval_file or data / "test.jsonl",
        args.output_dir,
        recipe=args.recipe,
        model=args.model,
        general_file=args.general_file,
        start_from=args.start_from,
        processes=args.processes,
        more_train_files=more_train_files,
        extra=extra,
    )


def _azure(args: argparse.Namespace) -> int:
    from ..azure import Cloud, follow_job, load_config, named_errors

    try:
        config = load_config(args.config)
    except OpsError as error:
        if not error.fix:  # the file exists, so the user wants to train on Azure
            raise
        fix = f"{error.fix} To train on this machine, give --local."
        raise OpsError(error.what, fix) from error
    cloud = Cloud(config)
    with named_errors("finetune"):
        submission = _submission(cloud, args)
        submission.plan().run(console(), dry_run=args.dry_run)
        if not args.dry_run:
            print_text(f"job {submission.name}")
            if args.follow:
                with waiting(console(), f"job {submission.name}", USUAL_START):
                    follow_job(cloud, submission.name)
            after_job(submission.name, has_ended=args.follow)
    return 0


def _submission(cloud: Cloud, args: argparse.Namespace) -> Submission:
    from ..training import (
        DEFAULT_MODEL,
        CatalogRequest,
        CatalogSubmission,
        JobRequest,
        JobSubmission,
        catalog_settings,
    )

    defaults = cloud.config.finetune
    train_file = args.train_file[0] if args.train_file else defaults.train_file
    eval_file = args.eval_file or defaults.eval_file
    model = args.model or defaults.model
    if args.catalog:
        settings = catalog_settings(args.set)
        request = CatalogRequest(train_file, eval_file, model or DEFAULT_MODEL, settings)
        return CatalogSubmission(cloud, request)
    return JobSubmission(
        cloud,
        JobRequest(
            train_file=train_file,
            eval_file=eval_file,
            recipe=args.recipe or defaults.recipe,
            model=model,
            cpu=args.cpu,
            rows=args.rows,
            epochs=args.epochs,
            instances=args.instances or defaults.instances,
        ),
    )
