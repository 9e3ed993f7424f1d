"""`phi3 compare`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..progress import waiting
from ..terminal import console, print_text
from ._common import integer, positive_int
from ._comparison import print_comparison, print_line

if TYPE_CHECKING:
    from ..comparison import Comparison, Thresholds
    from ..runs import ScoredRun

EXIT_INCONCLUSIVE = 2
DOCUMENT_FILE, PAGE_FILE = "compare.json", "compare.html"
OUTPUT_FILES = (DOCUMENT_FILE, PAGE_FILE)


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
        help="baseline: name or display name of a run, a folder of a run, or a JSONL file",
    )
    parser.add_argument(
        "others", metavar="B", nargs="+", help="run to compare with the baseline; repeatable"
    )
    _add_comparison_options(parser)
    _add_gate_options(parser)
    _add_report_options(parser)


def _add_comparison_options(parser: argparse.ArgumentParser) -> None:
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
        help="score to compare; repeatable (default: all, without `review`); `review`: the ratings of "
        "phi3 review",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="read a judge's scores as the ratings that they stand for; phi3 review --calibrate writes "
        "the file",
    )
    parser.add_argument(
        "--by",
        action="append",
        metavar="COLUMN",
        help="column of the data whose values make slices; repeatable (default: kind and tags)",
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


def _add_gate_options(parser: argparse.ArgumentParser) -> None:
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


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=paths.WORKDIR / "compare",
        metavar="DIR",
        help="folder for compare.json and compare.html (default: %(default)s)",
    )
    parser.add_argument(
        "--rows",
        type=positive_int,
        default=500,
        metavar="N",
        help="maximum number of lines in compare.html (default: %(default)s)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the content of compare.json instead of tables"
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
    screen = console(to_stderr=args.json)
    with waiting(screen, "reading the runs"):
        runs = [load_scored_run(name, args.data) for name in (args.baseline, *args.others)]
    file = args.thresholds or runs[0].thresholds or paths.FLOWS / "eval" / THRESHOLDS_FILE
    names = [*settings.metrics, *settings.gates]
    runs, thresholds = _with_review(runs, load_thresholds(file), names, args.calibration)
    with waiting(screen, "comparing"):
        comparison = compare_runs(runs, thresholds, settings)
        page = render_report(comparison, rows=args.rows)
    files = _write(comparison, page, args.out)
    if args.json:
        print_text(_document(comparison), end="")
        return comparison.exit_code
    print_comparison(screen, comparison)
    written = ", ".join(map(str, files))
    print_line(screen, f"thresholds: {file}; written: {written}")
    print_line(screen, f"next: open {files[0]} in a browser")
    return comparison.exit_code


def _with_review(
    runs: list[ScoredRun], thresholds: Thresholds, names: Sequence[str], calibration: Path | None
) -> tuple[list[ScoredRun], Thresholds]:
    """Apply a calibration, and add the ratings of reviewers if a score of theirs is named."""
    from ..review import (
        add_ratings,
        calibrate_run,
        is_review_metric,
        read_calibration,
        with_review_metrics,
    )

    if calibration:
        content = read_calibration(calibration)
        runs = [calibrate_run(run, content) for run in runs]
    if any(map(is_review_metric, names)):
        runs = add_ratings(runs)
        thresholds = with_review_metrics(thresholds, names)
    return runs, thresholds


def _document(comparison: Comparison) -> str:
    """Return the content of compare.json.

    It is ASCII: the name of a slice can contain half a surrogate pair, which UTF-8 cannot encode.
    """
    return json.dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n"


def _write(comparison: Comparison, page: str, folder: Path) -> tuple[Path, Path]:
    from ..files import atomic_folder, stage_marker

    with atomic_folder(folder, last=DOCUMENT_FILE) as staging:
        (staging / DOCUMENT_FILE).write_text(_document(comparison), encoding="utf-8")
        (staging / PAGE_FILE).write_text(page, encoding="utf-8")
        stage_marker(staging, folder, OUTPUT_FILES)
    return folder / PAGE_FILE, folder / DOCUMENT_FILE
