"""`phi3 sweep`."""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..progress import waiting
from ..terminal import console, print_text
from ._common import integer, positive_int
from ._next_step import print_next
from ._progress import progress_display
from ._records import add_json, messages_to_stderr, print_json
from ._sweep import print_estimate, print_result

if TYPE_CHECKING:
    from ..sweeps import Cell, CellEstimate, SweepPlan, SweepResult

DOCUMENT_FILE, PAGE_FILE, TABLE_FILE = "sweep.json", "sweep.html", "sweep.csv"
DEFAULT_MAX_CALLS, DEFAULT_IN_FLIGHT, DEFAULT_SEED = 10_000, 16, 1
OUTPUT_FILES = (DOCUMENT_FILE, PAGE_FILE, TABLE_FILE)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Try prompts, connections and parameters over one data file: every combination is a cell, and "
        "every cell is a run that `phi3 runs` lists. The command prints quality, intervals, latency, "
        "tokens and cost of each cell. It names a winner only if it is better than all other cells "
        "after correction for the number of comparisons. A second start asks nothing that was answered. "
        "Exit code: 0; 1 if a cell has no answer at all."
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="file of the sweep, such as sweep.yaml"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print cells, calls, estimated tokens and time, and call nothing",
    )
    parser.add_argument(
        "--max-calls",
        type=positive_int,
        default=DEFAULT_MAX_CALLS,
        metavar="N",
        help="refuse to start if the sweep would make more calls than this (default: %(default)s)",
    )
    parser.add_argument(
        "--in-flight",
        type=positive_int,
        default=DEFAULT_IN_FLIGHT,
        metavar="N",
        help="number of lines that run at once; lower while the endpoint answers 429 "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="run the failed lines of complete cells again"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for sweep.json, sweep.csv and sweep.html (default: .phi3/sweeps/ and the sweep's "
        "name)",
    )
    parser.add_argument(
        "--seed",
        type=integer,
        default=DEFAULT_SEED,
        help="seed of the bootstrap (default: %(default)s)",
    )
    add_json(parser)
    parser.epilog = "example:\n  phi3 sweep examples/sweep/sweep.yaml --dry-run"


def run(args: argparse.Namespace) -> int:
    from ..errors import OpsError
    from ..files import refuse_foreign_files
    from ..installation import install_command

    try:
        from ..sweeps import estimate, load_sweep, make_plan
    except ModuleNotFoundError as error:
        what = f"the package {error.name} is not installed"
        raise OpsError(what, install_command("eval")) from error

    config = load_sweep(args.file)
    folder = args.out or paths.WORKDIR / "sweeps" / config.name
    refuse_foreign_files(folder, OUTPUT_FILES)
    with tempfile.TemporaryDirectory(prefix="phi3-sweep-") as staging:
        plan = make_plan(config, Path(staging))
        estimates = estimate(plan, args.in_flight, retry_failed=args.retry_failed)
        if args.dry_run:
            return _print_dry_run(plan, estimates, as_json=args.json)
        _refuse_many_calls(estimates, args.max_calls)
        with messages_to_stderr(args.json):
            result = _run_cells(plan, folder, args)
    _write(result, folder)
    if args.json:
        print_text(_document(result), end="")
    else:
        print_result(result)
        print_text(f"written: {', '.join(str(folder / name) for name in OUTPUT_FILES)}")
        _print_next(result)
    return 1 if any(cell.answered == 0 for cell in result.cells) else 0


def _print_dry_run(plan: SweepPlan, estimates: list[CellEstimate], *, as_json: bool) -> int:
    if as_json:
        items = [each.to_json() for each in estimates]
        print_json(items, name=plan.config.name, lines=plan.lines, calls=_calls(estimates))
    else:
        print_estimate(plan, estimates)
    return 0


def _calls(estimates: list[CellEstimate]) -> int:
    return sum(each.calls + each.judge_calls for each in estimates)


def _refuse_many_calls(estimates: list[CellEstimate], most: int) -> None:
    from ..errors import OpsError

    if (calls := _calls(estimates)) > most:
        what = f"the sweep makes at least {calls:,} calls, more than --max-calls {most:,} allows"
        raise OpsError(what, "Raise --max-calls; --dry-run shows the cells.")


def _run_cells(plan: SweepPlan, folder: Path, args: argparse.Namespace) -> SweepResult:
    from ..sweeps import SweepRunner, analyse

    def on_cell(cell: Cell) -> None:
        print_text(f"{cell.letter} of {plan.cells[-1].letter}: {cell.label}", to_stderr=True)

    with progress_display() as display:
        runner = SweepRunner(
            plan,
            folder,
            command=_command(args),
            in_flight=args.in_flight,
            retry_failed=args.retry_failed,
            on_cell=on_cell,
            on_progress=display,
        )
        runs = runner.run()
    with waiting(console(to_stderr=True), "computing the intervals"):
        return analyse(plan, runs, in_flight=args.in_flight, seed=args.seed)


def _command(args: argparse.Namespace) -> str:
    """Return the command that goes on with a sweep."""
    words = ["phi3", "sweep", str(args.file)]
    defaults = {
        "out": None,
        "in_flight": DEFAULT_IN_FLIGHT,
        "max_calls": DEFAULT_MAX_CALLS,
        "seed": DEFAULT_SEED,
    }
    for name, default in defaults.items():
        if (value := getattr(args, name)) != default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += [
        f"--{name.replace('_', '-')}" for name in ("retry_failed", "json") if vars(args)[name]
    ]
    return shlex.join(words)


def _document(result: SweepResult) -> str:
    return json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n"


def _write(result: SweepResult, folder: Path) -> None:
    from ..files import atomic_folder, stage_marker
    from ..sweeps import render_sweep

    texts = {
        DOCUMENT_FILE: _document(result),
        PAGE_FILE: render_sweep(result),
        TABLE_FILE: result.to_csv(),
    }
    with atomic_folder(folder, last=DOCUMENT_FILE) as staging:
        for name, text in texts.items():
            (staging / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        stage_marker(staging, folder, OUTPUT_FILES)


def _print_next(result: SweepResult) -> None:
    """Print how to see the best cell and the baseline line by line, or the two best-known runs."""
    runs = {cell.letter: cell.run for cell in result.cells}
    best = result.decision.winner or result.decision.best
    other = best if best not in (None, "A") else "B"
    print_next("phi3", "compare", runs["A"], runs[str(other)])
