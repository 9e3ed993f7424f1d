"""`phi3 doctor`."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doctor import WAYS
from ..names import name_argument
from ..terminal import LOG_WIDTH, console, print_text
from ._common import add_config

if TYPE_CHECKING:
    from ..doctor import CheckResult

SCHEMA = 1
STYLES = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}
HEADING, PLAIN = "bold", ""


def arguments(parser: argparse.ArgumentParser) -> None:
    ways = "; ".join(f"{name}: {description}" for name, description in WAYS.items())
    parser.description = (
        "Report what works on this machine, what each further use needs, and how to get it. The command "
        "sends one short question to the endpoint of the connection, and changes nothing. The exit code "
        "is 1 if a way of use that --for names is not ready, or if a check of --azure fails."
    )
    parser.add_argument(
        "--for",
        dest="ways",
        nargs="+",
        choices=list(WAYS),
        metavar="WAY",
        help=f"ways of use that must be ready (default: report on all). {ways}",
    )
    parser.add_argument(
        "--azure",
        action="store_true",
        help="check instead what can be known about the subscription before money is spent; reads only",
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
        help="folder of the flows and their lock (default: as for `phi3 flow`)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from ..doctor import CHECKS, FAIL, REHEARSAL, CheckContext, run_checks

    requested = ["azure"] if args.azure else args.ways
    ways = list(dict.fromkeys(requested or WAYS))
    checks = REHEARSAL if args.azure else CHECKS
    context = CheckContext(args.connection, args.config, args.flows)
    screen = None if args.json else _screen()
    with screen.status("checking") if screen else nullcontext() as status:

        def started(name: str) -> None:
            if status:
                status.update(f"checking: {name}")

        results = run_checks(checks, context, ways, started)
    if args.json:
        print_text(json.dumps(_document(results, ways), indent=2))
    else:
        _print_report(screen, results, ways)
    return int(requested is not None and any(result.status == FAIL for result in results))


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


# -- the report ------------------------------------------------------------------------------------


def _print_report(screen: Any, results: Sequence[CheckResult], ways: Sequence[str]) -> None:
    for text, style in _report_lines(results, ways, screen.width if screen else LOG_WIDTH):
        if screen:
            screen.print(text, style=style or None, highlight=False, soft_wrap=True)
        else:
            print_text(text)


def _report_lines(
    results: Sequence[CheckResult], ways: Sequence[str], width: int
) -> Iterator[tuple[str, str]]:
    """Yield the lines of the report with their styles: first what works, then what the rest needs."""
    from ..doctor import failed_checks

    failed = {way: failed_checks(results, way) for way in ways}
    yield "works now", HEADING
    ready = [way for way in ways if not failed[way]]
    for way in ready:
        yield from _wrapped(f"  {way:8}  ", WAYS[way], STYLES["ok"], width)
    if not ready:
        yield "  nothing yet", PLAIN
    if missing := dict.fromkeys(tuple(names) for names in failed.values() if names):
        yield "", PLAIN
        yield "needs something first", HEADING
    for names in missing:
        for way in ways:
            if tuple(failed[way]) == names:
                yield from _wrapped(f"  {way:8}  ", WAYS[way], PLAIN, width)
        for result in results:
            if result.name in names:
                yield from _result_lines(result, "    ", width)
    yield "", PLAIN
    yield "checks", HEADING
    for result in results:
        mark = f"  {result.status:4}  "
        yield from _wrapped(mark, f"{result.name}: {result.what}", STYLES[result.status], width)
        if result.status == "warn":
            yield from _wrapped(" " * len(mark) + "-> ", result.fix, HEADING, width)


def _result_lines(result: CheckResult, indent: str, width: int) -> Iterator[tuple[str, str]]:
    yield from _wrapped(indent, f"{result.name}: {result.what}", STYLES[result.status], width)
    if result.fix:
        yield from _wrapped(f"{indent}-> ", result.fix, HEADING, width)


def _wrapped(start: str, text: str, style: str, width: int) -> Iterator[tuple[str, str]]:
    """Yield a text as lines with a hanging indentation below `start`. Words are never broken."""
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines or [start]:
        yield line, style
