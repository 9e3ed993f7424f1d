"""`phi3 compare`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from .. import paths
from ._common import console, whole

INCONCLUSIVE = 2


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare runs line by line with the first of them: differences with intervals, what was won and "
        "lost, slices. Prints a table, writes compare.json and compare.html. A line that failed or is "
        "missing counts as a failure. With --gate the exit code is 0 (pass), 1 (regression) or 2 "
        "(inconclusive, too many lines without a score, or nothing could be compared)."
    )
    parser.add_argument(
        "baseline", metavar="A", help="run in prompt flow's store, folder or JSONL file"
    )
    parser.add_argument("others", metavar="B", nargs="+", help="runs to set against it")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="data file (default: the one that the runs record)",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="score; repeatable (default: all)",
    )
    parser.add_argument(
        "--by",
        action="append",
        metavar="COLUMN",
        help="column of the data whose values make slices; repeatable (default: kind and tags)",
    )
    parser.add_argument(
        "--gate",
        action="append",
        type=_gate,
        default=[],
        metavar="METRIC[:MARGIN]",
        help="fail unless at most MARGIN worse; repeatable; `all`: each score that has a margin",
    )
    parser.add_argument(
        "--thresholds",
        type=Path,
        metavar="FILE",
        help="margins and directions (default: thresholds.yaml beside the flow of the scores)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=paths.WORKDIR / "compare",
        metavar="DIR",
        help="folder for compare.json and compare.html (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the resampling (default: %(default)s)"
    )
    parser.add_argument(
        "--resamples", type=whole, default=10_000, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--rows",
        type=whole,
        default=500,
        metavar="N",
        help="lines in the page (default: %(default)s)",
    )


def _gate(text: str) -> tuple[str, float | None]:
    name, colon, margin = text.rpartition(":")
    if not colon:
        return text, None
    value = float(margin)
    if not name or not 0 <= value < math.inf:
        raise ValueError
    return name, value


def run(args: argparse.Namespace) -> int:
    from ..errors import OpsError

    try:
        return _compare(args)
    except OpsError as error:
        if not args.gate or args.verbose:
            raise
        # 1 would say that the model is worse.
        print(f"phi3 compare: {error}", file=sys.stderr)
        return INCONCLUSIVE


def _compare(args: argparse.Namespace) -> int:
    from ..errors import OpsError
    from ..files import atomic_file as whole_file

    try:
        from ..comparison import ComparisonSettings, compare_runs, load_thresholds, render_report
        from ..runs import THRESHOLDS_FILE, load_scored_run
    except ModuleNotFoundError as error:
        fix = "pip install 'phi3-promptflow[eval]'"
        raise OpsError(f"the package {error.name} is not installed", fix) from error

    settings = ComparisonSettings(
        metrics=args.metric,
        by=args.by,
        gates=dict(args.gate),
        seed=args.seed,
        resamples=args.resamples,
    )
    screen = console()
    with screen.status("reading the runs"):
        found = [load_scored_run(name, args.data) for name in (args.baseline, *args.others)]
    file = args.thresholds or found[0].thresholds or paths.FLOWS / "eval" / THRESHOLDS_FILE
    with screen.status("comparing"):
        report = compare_runs(found, load_thresholds(file), settings)
        page = render_report(report, rows=args.rows)
    with whole_file(args.out / "compare.json") as out:
        # ASCII: a slice's name can hold half a surrogate pair, which JSON has and UTF-8 has not.
        json.dump(report.summary, out, indent=2, allow_nan=False)
        out.write("\n")
    with whole_file(args.out / "compare.html") as out:
        out.write(page)
    _print(screen, report.summary)
    names = ", ".join(str(args.out / name) for name in ("compare.html", "compare.json"))
    _say(screen, f"thresholds of {file}; written: {names}")
    return report.exit_code


# -- what is printed -------------------------------------------------------------------------------


def _print(screen: Any, summary: dict[str, Any]) -> None:
    from ..comparison import escape_invisible

    data = summary["data"]
    _say(screen, f"{data['lines']:,} lines of {escape_invisible(data['path'])}")
    for row in summary["runs"]:
        failed = f", {row['failed']:,} failed" if row["failed"] else ""
        note = f" ({escape_invisible(row['note'])})" if row["note"] else ""
        _say(
            screen,
            f"  {row['letter']}  {escape_invisible(row['name'])}: "
            f"{row['answered']:,} answered{failed}{note}",
        )
    for row in summary["differences"]:
        values = " | ".join(
            "–" if v is None else _short(escape_invisible(v)) for v in row["values"]
        )
        _say(screen, f"     {escape_invisible(row['fact'])}: {values}")
    screen.print(_table("Scores", summary["comparisons"], head=("run", "score")))
    slices = [
        {**part, "run": entry["run"], "metric": entry["metric"]}
        for entry in summary["comparisons"]
        for part in entry["slices"]
    ]
    if slices:
        slices.sort(key=lambda part: (part["by"], part["value"]))
        screen.print(_table("Slices", slices, head=("slice", "run", "score")))
    _notes(screen, summary)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


def _table(title: str, rows: list[dict[str, Any]], *, head: tuple[str, ...]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ..comparison import escape_invisible, format_number, format_p_value, format_signed

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in head:
        table.add_column(name, overflow="fold")
    for name in ("n", "mean of A", "mean", "difference", "95 % interval", "won/lost/tied", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for row in rows:
        part = f"{row['by']}: {row['value']}" if "slice" in head else None
        first = [] if part is None else [Text(escape_invisible(part) if part != before else "")]
        before = part
        won = f"{row['wins']}/{row['losses']}/{row['ties']}" if "wins" in row else "–"
        table.add_row(
            *first,
            row["run"],
            Text(escape_invisible(row["metric"])),
            f"{row['n']:,}",
            format_number(row["baseline_mean"]),
            format_number(row["mean"]),
            format_signed(row["difference"]),
            f"{format_signed(row['low'])} to {format_signed(row['high'])}",
            won,
            format_p_value(row["p_value"]) if "wins" in row else "–",
        )
    return table


def _notes(screen: Any, summary: dict[str, Any]) -> None:
    compared = summary["comparisons"]
    for entry in compared:
        if entry["unscored"]:
            share = entry["unscored"] / summary["data"]["lines"]
            _say(
                screen, f"{entry['run']}, {entry['metric']}: {share:.1%} of the lines have no score"
            )
    if len(compared) > 1:
        text = "of twenty between equals, one falls outside its interval by chance"
        _say(screen, f"{len(compared)} comparisons: {text}")
    for entry in compared:
        if "gate" in entry:
            gate = entry["gate"]
            _say(
                screen,
                f"gate {entry['run']}, {entry['metric']}: {gate['verdict']} ({gate['reason']})",
            )
    if summary["gate"]:
        _say(screen, f"gate: {summary['gate']['verdict']}")


def _say(screen: Any, text: str) -> None:
    screen.print(text, markup=False, highlight=False, soft_wrap=True)
