"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import paths


def add_workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir",
        type=Path,
        default=paths.WORKDIR,
        metavar="DIR",
        help="where everything that is made lies (default: %(default)s)",
    )


def positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port (0 to 65535)")
    return value
