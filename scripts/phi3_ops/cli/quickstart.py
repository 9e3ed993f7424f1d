"""`phi3 quickstart`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import paths
from ..terminal import console
from ._common import add_workdir, integer, port, positive_number


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run the whole path on this machine: prepare data, fine-tune a model, serve it, connect it, chat "
        "with it, and evaluate it before and after the training."
    )
    add_workdir(parser)
    parser.add_argument(
        "--data",
        type=Path,
        default=paths.SAMPLE_DATA,
        metavar="FILE",
        help="JSONL file with `messages` (default: the questions and answers of this package)",
    )
    parser.add_argument(
        "--model",
        metavar="FOLDER_OR_ID",
        help="model to fine-tune (default: a tiny model that is made from scratch)",
    )
    parser.add_argument(
        "--recipe", default="tiny-cpu", help="recipe of the training (default: %(default)s)"
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
    parser.add_argument(
        "--port", type=port, default=0, help="port of the endpoint (default: a free one)"
    )
    parser.add_argument(
        "--replace-connection",
        action="store_true",
        help="replace the connection `phi3` even if it points to another endpoint",
    )
    parser.add_argument(
        "--stop-endpoint",
        action="store_true",
        help="stop the endpoint at the end (default: it stays running, so that you can chat with it)",
    )
    parser.add_argument(
        "--remove", action="store_true", help="only undo an earlier quickstart, and exit"
    )


def run(args: argparse.Namespace) -> int:
    from ..quickstart import QuickstartOptions, remove_quickstart, run_quickstart

    options = QuickstartOptions(
        workdir=args.workdir,
        source=args.data,
        seed=args.seed,
        recipe=args.recipe,
        model=args.model,
        epochs=args.epochs,
        port=args.port,
        replace_connection=args.replace_connection,
        keep_endpoint=not args.stop_endpoint,
    )
    screen = console()
    if args.remove:
        removed = remove_quickstart(options)
        screen.print("\n".join(removed) or "nothing to remove", highlight=False, soft_wrap=True)
        return 0
    run_quickstart(options, screen)
    return 0
