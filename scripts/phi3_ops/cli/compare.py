"""`phi3 compare`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import paths
from ..terminal import console, one_line, print_text
from ._common import integer, positive_int

if TYPE_CHECKING:
    from rich.table import Table

    from ..comparison import Comparison, PairedResult

EXIT_INCONCLUSIVE = 2
DOCUMENT_FILE, PAGE_FILE = "compare.json", "compare.html"
OUTPUT_FILES = (DOCUMENT_FILE, PAGE_FILE)
MAX_FACT = 60  # characters of a recorded property that are printed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare every run with the first run, line by line: differences with intervals, numbers of won "
        "and lost lines, slices. The command prints a table and writes compare.json and compare.html. A "
        "line that failed or is missing counts as a failure. With --gate, the exit code is 0 (pass), 1 "
        "(regression) or 2 (inconclusive, too many lines without a score, or nothing could be compared)."
    )
    parser.add_argument(
        "baseline",
        metavar="A",
        help="baseline: a run in Prompt flow's store, a folder or a JSONL file",
    )
    parser.add_argument(
        "others", metavar="B", nargs="+", help="run to compare with the baseline; repeatable"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="data file (default: the file that the runs record)",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="score to compare; repeatable (default: all)",
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
        help="fail if the score may be more than MARGIN worse; repeatable; `all`: every score that has "
        "a margin in the thresholds",
    )
    parser.add_argument(
        "--thresholds",
        type=Path,
        metavar="FILE",
        help="file with margins and directions (default: thresholds.yaml of the flow that computed the "
        "scores)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=paths.WORKDIR / "compare",
        metavar="DIR",
        help="folder for compare.json and compare.html (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=integer, default=1, help="seed of the bootstrap (default: %(default)s)"
    )
    parser.add_argument(
        "--resamples",
        type=positive_int,
        default=10_000,
        metavar="N",
        help="number of bootstrap samples (default: %(default)s)",
    )
    parser.add_argument(
        "--rows",
        type=positive_int,
        default=500,
        metavar="N",
        help="maximum number of lines in compare.html (default: %(default)s)",
    )


def _gate(text: str) -> tuple[str, float | None]:
    """Parse METRIC[:MARGIN].

    Raises:
        argparse.ArgumentTypeError: the name is empty, or the margin is not a number of 0 or more.
    """
    name, colon, margin_text = text.rpartition(":")
    if not colon:
        return text, None
    try:
        margin = float(margin_text)
    except ValueError:
        margin = math.nan
    if not name or not 0 <= margin < math.inf:
        raise argparse.ArgumentTypeError("use METRIC:MARGIN, for example exact_match:0.02")
    return name, margin


def run(args: argparse.Namespace) -> int:
    from ..errors import OpsError

    try:
        return _compare(args)
    except OpsError as error:
        if not args.gate or args.verbose:
            raise
        # With a gate, exit code 1 would mean that the model is worse.
        print_text(f"phi3 compare: {error}", to_stderr=True)
        return EXIT_INCONCLUSIVE


def _compare(args: argparse.Namespace) -> int:
    from ..errors import OpsError
    from ..files import refuse_foreign_files
    from ..installation import install_command

    try:
        from ..comparison import ComparisonSettings, compare_runs, load_thresholds, render_report
        from ..runs import THRESHOLDS_FILE, load_scored_run
    except ModuleNotFoundError as error:
        what = f"the package {error.name} is not installed"
        raise OpsError(what, install_command("eval")) from error

    settings = ComparisonSettings(
        metrics=args.metric,
        by=args.by,
        gates=dict(args.gate),
        seed=args.seed,
        resamples=args.resamples,
    )
    refuse_foreign_files(args.out, OUTPUT_FILES)
    screen = console()
    with screen.status("reading the runs"):
        runs = [load_scored_run(name, args.data) for name in (args.baseline, *args.others)]
    thresholds = args.thresholds or runs[0].thresholds or paths.FLOWS / "eval" / THRESHOLDS_FILE
    with screen.status("comparing"):
        comparison = compare_runs(runs, load_thresholds(thresholds), settings)
        page = render_report(comparison, rows=args.rows)
    files = _write(comparison, page, args.out)
    _print_comparison(screen, comparison)
    written = ", ".join(map(str, files))
    _print_line(screen, f"thresholds: {thresholds}; written: {written}")
    _print_line(screen, f"next: open {files[0]} in a browser")
    return comparison.exit_code


def _write(comparison: Comparison, page: str, folder: Path) -> tuple[Path, Path]:
    from ..files import atomic_folder, stage_marker

    # ASCII: the name of a slice can contain half a surrogate pair, which UTF-8 cannot encode.
    document = json.dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n"
    with atomic_folder(folder, last=DOCUMENT_FILE) as staging:
        (staging / DOCUMENT_FILE).write_text(document, encoding="utf-8")
        (staging / PAGE_FILE).write_text(page, encoding="utf-8")
        stage_marker(staging, folder, OUTPUT_FILES)
    return folder / PAGE_FILE, folder / DOCUMENT_FILE


# -- printing --------------------------------------------------------------------------------------


def _print_comparison(screen: Any, comparison: Comparison) -> None:
    _print_runs(screen, comparison)
    table = _table("Scores", ("run", "score"))
    for entry in comparison.comparisons:
        table.add_row(entry.run, one_line(entry.metric), *_result_cells(entry.result))
    screen.print(table)
    if any(entry.slices for entry in comparison.comparisons):
        screen.print(_slice_table(comparison))
    _print_notes(screen, comparison)


def _print_runs(screen: Any, comparison: Comparison) -> None:
    data = comparison.data
    _print_line(screen, f"{data.lines:,} lines of {one_line(data.path)}")
    for run in comparison.runs:
        failed = f", {run.failed:,} failed" if run.failed else ""
        note = f" ({one_line(run.note)})" if run.note else ""
        name = one_line(run.name)
        _print_line(screen, f"  {run.letter}  {name}: {run.answered:,} answered{failed}{note}")
    for difference in comparison.differences:
        values = " | ".join(
            "–" if value is None else _shorten(value) for value in difference.values
        )
        _print_line(screen, f"     {one_line(difference.fact)}: {values}")


def _shorten(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= MAX_FACT else line[: MAX_FACT - 1] + "…"


def _slice_table(comparison: Comparison) -> Table:
    table = _table("Slices", ("slice", "run", "score"))
    parts = [(entry, part) for entry in comparison.comparisons for part in entry.slices]
    parts.sort(key=lambda pair: (pair[1].by, pair[1].value))
    previous = None
    for entry, part in parts:
        title = f"{part.by}: {part.value}"
        cells = _result_cells(part.result)
        table.add_row(
            "" if title == previous else one_line(title), entry.run, one_line(entry.metric), *cells
        )
        previous = title
    return table


def _table(title: str, columns: Iterable[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, overflow="fold")
    for name in ("n", "mean of A", "mean", "difference", "95 % interval", "won/lost/tied", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _result_cells(result: PairedResult) -> tuple[str, ...]:
    from ..comparison import format_number, format_p_value, format_signed

    outcomes = result.outcomes
    return (
        f"{result.n:,}",
        format_number(result.baseline_mean),
        format_number(result.mean),
        format_signed(result.difference),
        f"{format_signed(result.low)} to {format_signed(result.high)}",
        f"{outcomes.wins}/{outcomes.losses}/{outcomes.ties}" if outcomes else "–",
        format_p_value(outcomes.p_value) if outcomes else "–",
    )


def _print_notes(screen: Any, comparison: Comparison) -> None:
    entries = comparison.comparisons
    for entry in entries:
        if entry.unscored:
            share = entry.unscored / comparison.data.lines
            _print_line(
                screen, f"{entry.run}, {entry.metric}: {share:.1%} of the lines have no score"
            )
    if len(entries) > 1:
        note = "about 1 in 20 comparisons looks significant by chance"
        _print_line(screen, f"{len(entries)} comparisons: {note}")
    for entry in entries:
        if entry.gate:
            _print_line(
                screen,
                f"gate {entry.run}, {entry.metric}: {entry.gate.verdict} ({entry.gate.reason})",
            )
    if comparison.gate:
        _print_line(screen, f"gate: {comparison.gate.verdict}")


def _print_line(screen: Any, text: str) -> None:
    screen.print(text, highlight=False, soft_wrap=True)
