"""`phi3 doctor`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doctor import WAYS
from ..names import name_argument
from ..terminal import console, print_text
from ._common import add_config

if TYPE_CHECKING:
    from ..doctor import CheckResult

SCHEMA = 1
STYLES = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}


def arguments(parser: argparse.ArgumentParser) -> None:
    ways = "; ".join(f"{name}: {description}" for name, description in WAYS.items())
    parser.description = (
        "Report what is missing or wrong, and how to fix it. The command sends one short question to the "
        "endpoint of the connection, and changes nothing. The exit code is 1 if a check failed."
    )
    parser.add_argument(
        "--for",
        dest="ways",
        nargs="+",
        choices=list(WAYS),
        default=list(WAYS),
        metavar="WAY",
        help=f"ways of use to check (default: all). {ways}",
    )
    parser.add_argument(
        "--connection",
        type=name_argument,
        default="phi3",
        metavar="NAME",
        help="connection to check (default: %(default)s)",
    )
    add_config(parser)
    parser.add_argument(
        "--flows",
        type=Path,
        metavar="DIR",
        help="folder of the flows and their lock (default: the flows of this package)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from ..doctor import CHECKS, FAIL, CheckContext, run_checks

    context = CheckContext(args.connection, args.config, args.flows)
    screen = None if args.json else _screen()
    with screen.status("checking") if screen else nullcontext() as status:

        def started(name: str) -> None:
            if status:
                status.update(f"checking: {name}")

        results = run_checks(CHECKS, context, args.ways, started)
    if args.json:
        print_text(json.dumps(_document(results, args.ways), indent=2))
    elif screen:
        screen.print(_table(results))
        screen.print(_summary(results, args.ways))
    else:
        _print_plain(results)
    return int(any(result.status == FAIL for result in results))


def _screen() -> Any:
    """Return a console, or None if the package `rich` is missing."""
    try:
        return console()
    except ModuleNotFoundError:
        return None


def _document(results: Sequence[CheckResult], ways: Sequence[str]) -> dict[str, Any]:
    from ..doctor import failed_checks

    failed = {way: failed_checks(results, way) for way in ways}
    return {
        "schema": SCHEMA,
        "ok": not any(failed.values()),
        "ways": {way: {"ready": not names, "failed": names} for way, names in failed.items()},
        "checks": [asdict(result) for result in results],
    }


def _table(results: Sequence[CheckResult]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for no_wrap in (True, True, False):
        table.add_column(no_wrap=no_wrap, overflow="fold")
    for result in results:
        mark = Text(result.status, STYLES[result.status])
        table.add_row(mark, result.name, Text(result.what))
        if result.fix:
            table.add_row("", "", Text(f"-> {result.fix}", "bold"))
    return table


def _summary(results: Sequence[CheckResult], ways: Sequence[str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from ..doctor import failed_checks

    table = Table(box=None, pad_edge=False, title="", title_justify="left", show_header=False)
    for way in dict.fromkeys(ways):
        failed = failed_checks(results, way)
        not_ready = Text(f"not ready: {', '.join(failed)}", "red")
        table.add_row(way, not_ready if failed else Text("ready", "green"))
    return table


def _print_plain(results: Sequence[CheckResult]) -> None:
    for result in results:
        print_text(f"{result.status:4}  {result.name}: {result.what}")
        if result.fix:
            print_text(f"      -> {result.fix}")
