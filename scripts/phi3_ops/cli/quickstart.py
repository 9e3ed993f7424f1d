"""`phi3 quickstart`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .. import paths
from ..terminal import agrees, console, print_text
from ._columns import add_columns, chosen_columns, naming_columns
from ._common import add_engine, add_yes, integer, port, positive_int, positive_number
from ._records import messages_to_stderr


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run the whole path on this machine: prepare data, fine-tune a model, serve it, connect it, chat "
        "with it, and evaluate it before and after the training."
    )
    _add_training_options(parser)
    _add_serving_options(parser)
    parser.add_argument(
        "--remove",
        action="store_true",
        help="only undo an earlier quickstart, and exit: list what is removed and what stays, and ask "
        "before its runs are deleted",
    )
    add_yes(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the content of summary.json instead of tables"
    )


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help=f"folder for everything that the command creates (default: {paths.WORKDIR}; with --data "
        f"mine.csv {paths.WORKDIR}-mine)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=paths.SAMPLE_DATA,
        metavar="FILE",
        help="your own questions and answers: CSV, JSON, JSONL or Parquet file (default: the questions "
        "and answers of this package)",
    )
    add_columns(parser)
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="model to fine-tune: smollm2 (135 million parameters), tiny (made from scratch, in a "
        "minute), a folder, a GGUF file, or with --recipe a hub id (default: smollm2)",
    )
    parser.add_argument(
        "--recipe",
        help="recipe of the training (default: the one for two CPU cores that suits the model's size)",
    )
    parser.add_argument(
        "--questions",
        type=positive_int,
        metavar="N",
        help="maximum number of questions of each kind that both models are asked (default: 60; with "
        "the tiny model all)",
    )
    parser.add_argument(
        "--epochs", type=positive_number, help="number of epochs (default: that of the recipe)"
    )
    parser.add_argument(
        "--seed",
        type=integer,
        default=1,
        help="seed of the data split and of the training (default: %(default)s)",
    )


def _add_serving_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port", type=port, default=0, help="port of the endpoint (default: a free one)"
    )
    add_engine(parser)
    parser.add_argument(
        "--replace-connection",
        action="store_true",
        help="replace the connection `phi3` even if it points to another endpoint",
    )
    parser.add_argument(
        "--stop-endpoint",
        action="store_true",
        help="stop the endpoints at the end and start no chat page (default: they stay running, so that "
        "you can chat)",
    )


def run(args: argparse.Namespace) -> int:
    from ..errors import OpsError
    from ..quickstart import (
        QuickstartOptions,
        default_workdir,
        remove_quickstart,
        run_quickstart,
    )

    if args.remove and args.json:
        raise OpsError("--json has no effect with --remove", "Remove --json.")
    if args.engine == "promptflow":
        from ..pf import require_promptflow

        require_promptflow("--engine promptflow")
    options = QuickstartOptions(
        workdir=args.workdir or default_workdir(args.data),
        source=args.data,
        columns=chosen_columns(args.prompt_column, args.answer_column),
        seed=args.seed,
        model=args.model,
        recipe=args.recipe,
        questions=args.questions,
        epochs=args.epochs,
        port=args.port,
        replace_connection=args.replace_connection,
        keep_endpoint=not args.stop_endpoint,
        engine=args.engine,
    )
    screen = console()
    if args.remove:
        removed = remove_quickstart(options.workdir, lambda question: args.yes or _agrees(question))
        screen.print("\n".join(removed), highlight=False, soft_wrap=True)
        return 0
    command = ["quickstart", "--data", args.data]
    command += ["--model", args.model] if args.model else []
    command += ["--workdir", args.workdir] if args.workdir else []
    with messages_to_stderr(args.json), naming_columns(command):
        summary = run_quickstart(options, screen)
    if args.json:
        print_text(json.dumps(summary.to_json(), indent=2))
    return 0


def _agrees(question: str) -> bool:
    """Ask on the terminal. Without a terminal the answer is no."""
    return sys.stdin.isatty() and agrees(question)
