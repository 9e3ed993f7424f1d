"""`phi3 quickstart`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import paths
from ._common import add_workdir, port, positive_number


def arguments(parser: argparse.ArgumentParser) -> None:
    add_workdir(parser)
    parser.add_argument(
        "--data",
        type=Path,
        default=paths.SAMPLE_DATA,
        metavar="FILE",
        help="JSONL with `messages` (default: the shipped questions and answers)",
    )
    parser.add_argument(
        "--model",
        metavar="FOLDER_OR_ID",
        help="fine-tune this model and not a tiny one made from scratch",
    )
    parser.add_argument(
        "--recipe", default="tiny-cpu", help="recipe of the training (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=positive_number, help="epochs, in place of the recipe's")
    parser.add_argument(
        "--seed", type=int, default=1, help="of split and training (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=port, default=0, help="of the endpoint (default: a free one)"
    )
    parser.add_argument(
        "--replace-connection",
        action="store_true",
        help="let it replace a connection `phi3` that points elsewhere",
    )
    parser.add_argument(
        "--stop-endpoint",
        action="store_true",
        help="stop the endpoint at the end; otherwise it stays for you to chat with",
    )
    parser.add_argument(
        "--remove", action="store_true", help="undo a quickstart, and do nothing else"
    )


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from .. import quickstart

    options = quickstart.QuickstartOptions(
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
    console = Console()
    if args.remove:
        removed = quickstart.remove_quickstart(options)
        console.print("\n".join(removed) or "nothing to remove", highlight=False, soft_wrap=True)
        return 0
    quickstart.run_quickstart(options, console)
    return 0
