"""Arguments, argument types and the handling of subcommands that several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths

Arguments = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True)
class Subcommand:
    """A subcommand such as `phi3 flow lock`: its help text, its arguments, and its function."""

    help: str
    arguments: Arguments
    run: Callable[[argparse.Namespace], int]


def add_subcommands(
    parser: argparse.ArgumentParser,
    subcommands: Mapping[str, Subcommand],
    add_shared: Arguments | None = None,
) -> None:
    """Add subcommands to the parser of a command; `add_shared` adds the arguments that all have."""
    commands = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND")
    for name, subcommand in subcommands.items():
        sub = commands.add_parser(name, help=subcommand.help, description=subcommand.help)
        # `--verbose` is accepted before and after the subcommand; without it here, the former counts.
        sub.add_argument(
            "--verbose",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error",
        )
        sub.set_defaults(parser=sub)
        if add_shared:
            add_shared(sub)
        subcommand.arguments(sub)


def run_subcommand(args: argparse.Namespace, subcommands: Mapping[str, Subcommand]) -> int:
    """Run the subcommand of a command line, or print the help if it has none."""
    if args.subcommand is None:
        args.parser.print_help()
        return 0
    return subcommands[args.subcommand].run(args)


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """Add `--workdir`."""
    parser.add_argument(
        "--workdir",
        type=Path,
        default=paths.WORKDIR,
        metavar="DIR",
        help="folder for everything that the command creates (default: %(default)s)",
    )


def add_config(parser: Any) -> None:
    """Add `--config` to a parser or a group of arguments."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: PHI3_CONFIG, or phi3.yaml; see scripts/phi3.example.yaml)",
    )


def add_dry_run(parser: Any) -> None:
    """Add `--dry-run` to a parser or a group of arguments."""
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would change, and change nothing"
    )


def add_reading_dry_run(parser: Any) -> None:
    """Add `--dry-run` to the parser of a command that only reads, for scripts that always give it."""
    parser.add_argument(
        "--dry-run", action="store_true", help="no effect: this command changes nothing anyway"
    )


def add_yes(parser: Any) -> None:
    """Add `--yes` to a parser or a group of arguments."""
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def add_engine(parser: Any, default: str = "phi3") -> None:
    """Add `--engine` to a parser or a group of arguments."""
    parser.add_argument(
        "--engine",
        choices=["phi3", "promptflow"],
        default=default,
        help="engine that runs the flow: phi3, which needs no Prompt flow, or promptflow, Prompt flow's "
        "own (default: %(default)s)",
    )


def positive_int(text: str) -> int:
    """Parse an integer of at least 1 for argparse."""
    value = integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def positive_number(text: str) -> float:
    """Parse a number above 0 for argparse."""
    value = number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    if math.isinf(value):
        raise argparse.ArgumentTypeError(f"{text} is too large")
    return value


def number(text: str) -> float:
    """Parse a number for argparse."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from None


def integer(text: str) -> int:
    """Parse an integer for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not an integer") from None


def port(text: str) -> int:
    """Parse a TCP port for argparse; 0 stands for a free one."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port (0 to 65535)")
    return value
