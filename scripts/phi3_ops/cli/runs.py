"""`phi3 runs`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OpsError
from ..terminal import agrees, console, one_line, print_text
from ._common import add_yes, positive_int
from ._records import add_json, print_json, print_table

if TYPE_CHECKING:
    from ..runs import RunDetails

COLUMNS = ("name", "display_name", "status", "flow", "created")
SHOWN_LINES = 10


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the runs on this machine, the newest first. A run can be named by its display name, which "
        "stands for the newest run of that name."
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--show", metavar="NAME", help="show a run: its metrics, its failures and its first lines"
    )
    action.add_argument("--delete", metavar="NAME", help="delete a run with its answers")
    parser.add_argument(
        "--last",
        type=positive_int,
        default=20,
        metavar="N",
        help="number of runs that are listed (default: %(default)s)",
    )
    add_yes(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.delete and args.json:
        raise OpsError("--json has no effect with --delete", "Remove --json.")
    if args.show:
        return _show(args.show, as_json=args.json)
    if args.delete:
        return _delete(args.delete, confirmed=args.yes)
    return _list(args.last, as_json=args.json)


def _list(count: int, *, as_json: bool) -> int:
    from ..runs import list_runs

    runs = list_runs()
    records = [
        {
            "name": run.name,
            "display_name": run.title,
            "status": run.status,
            "flow": str(run.flow) if run.flow else None,
            "created": run.created_on.astimezone().isoformat(timespec="seconds"),
        }
        for run in runs[:count]
    ]
    if as_json:
        print_json(records, older=max(0, len(runs) - count))
        return 0
    if not runs:
        print_text("no runs; start one with phi3 run --flow FLOW --data FILE")
        return 0
    formats = {"flow": lambda flow: Path(flow or "").name, "created": _minutes}
    print_table(records, COLUMNS, formats=formats)
    if len(runs) > count:
        print_text(f"{len(runs) - count} older runs are not listed; --last {len(runs)} lists all")
    return 0


def _minutes(time: str) -> str:
    """Return an ISO time without seconds and time zone."""
    return time[:16].replace("T", " ")


def _show(reference: str, *, as_json: bool) -> int:
    from ..runs import run_details

    details = run_details(reference)
    if as_json:
        _print_details(details)
        return 0
    stored = details.run
    print_text(f"{stored.name}: {stored.status}, {details.counts}")
    facts = {"flow": stored.flow, "data": stored.data, "base run": stored.base}
    for name, fact in {**facts, "folder": stored.folder}.items():
        if fact:
            print_text(f"  {name}: {fact}")
    for name, value in details.outputs.metrics.items():
        print_text(f"  metric {name}: {value}")
    console().print(_lines_table(details))
    if len(details.lines) > SHOWN_LINES:
        print_text(f"the other {len(details.lines) - SHOWN_LINES} lines are in the folder")
    return 0


def _print_details(details: RunDetails) -> None:
    """Print a run and its lines as JSON."""
    outputs, stored = details.outputs, details.run
    files = {"flow": stored.flow, "data": stored.data, "base": stored.base, "folder": stored.folder}
    print_json(
        [
            {"line": line, "outputs": outputs.rows.get(line), "error": outputs.errors.get(line)}
            for line in details.lines
        ],
        name=stored.name,
        status=stored.status,
        **{name: None if value is None else str(value) for name, value in files.items()},
        metrics=dict(outputs.metrics),
    )


def _lines_table(details: RunDetails) -> Any:
    names = list(dict.fromkeys(name for row in details.outputs.rows.values() for name in row))
    table = _table(("line", *names))
    for line in details.lines[:SHOWN_LINES]:
        row = details.outputs.rows.get(line)
        if row is None:
            failure = one_line(details.outputs.errors.get(line, "no answer"))
            table.add_row(str(line), f"failed: {failure}")
        else:
            table.add_row(str(line), *(one_line(str(row.get(name, ""))) for name in names))
    return table


def _delete(reference: str, *, confirmed: bool) -> int:
    from ..runs import delete_run, run_details

    stored = run_details(reference).run
    if not confirmed and not agrees(f"Delete the run {one_line(stored.name)}?"):
        print_text("nothing was deleted")
        return 1
    delete_run(stored.name)
    print_text(f"deleted {stored.name}")
    return 0


def _table(columns: tuple[str, ...]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(one_line(column), overflow="fold")
    return table
