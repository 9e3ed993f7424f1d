"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import paths


def add_workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir",
        type=Path,
        default=paths.WORKDIR,
        metavar="DIR",
        help="where everything that is made lies (default: %(default)s)",
    )


def add_config(parser: Any) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: PHI3_CONFIG, or phi3.yaml; see scripts/phi3.example.yaml)",
    )


def add_dry_run(parser: Any) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="read what is there, print what would change"
    )


def add_yes(parser: Any) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def console() -> Any:
    """A rich Console; wide where nobody looks, so that tables in files and pipes are not folded."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=200)


def whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


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
