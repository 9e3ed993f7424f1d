"""`phi3 data --feedback`, `--run` and `--review`: training data from what people corrected."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..errors import OpsError
from ..terminal import console, counted, print_text
from ._next_step import print_next

if TYPE_CHECKING:
    from rich.table import Table

    from ..corrections import CorrectionData, Selection

DEFAULT_OUT = paths.WORKDIR / "corrections"
USERS_STORE = object()  # `--feedback` without a file


def add_correction_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that make training data from feedback, runs and reviews."""
    group = parser.add_argument_group("from corrections; see docs/feedback-to-data.md")
    group.add_argument(
        "--feedback",
        nargs="?",
        const=USERS_STORE,
        type=Path,
        metavar="STORE",
        help="make rows and preferences from the feedback in this store (without STORE: the store of "
        "phi3 serve --feedback)",
    )
    group.add_argument(
        "--review",
        action="append",
        default=[],
        metavar="RUN",
        help="make rows and preferences from the judgements of phi3 review on this run; repeatable",
    )
    group.add_argument(
        "--run",
        dest="lost_runs",
        action="append",
        default=[],
        metavar="RUN",
        help="make preferences from the lines that this run lost: those that differ from the "
        "reference, or, with --against, those with a worse score; repeatable",
    )
    group.add_argument(
        "--against", metavar="RUN", help="run that --run is compared with, line by line"
    )
    group.add_argument(
        "--metric",
        metavar="NAME",
        help="score that decides which lines are lost (default: token_f1, or the first common score)",
    )
    group.add_argument(
        "--run-data",
        type=Path,
        metavar="FILE",
        help="data file of the runs (default: the file that the runs record)",
    )
    parser.add_argument(
        "--test",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="file with test questions, which never enter the training data, nor do questions that are "
        "nearly equal; repeatable (required for corrections)",
    )


def makes_corrections(args: argparse.Namespace) -> bool:
    """Return whether the options ask for training data from corrections."""
    return args.feedback is not None or bool(args.lost_runs or args.review)


def run_corrections(args: argparse.Namespace) -> int:
    """Write and report training data from corrections."""
    from ..corrections import CorrectionSources, RunSource, make_correction_data
    from ..feedback import default_store

    if not args.test:
        fix = "Add --test FILE, for example .phi3/data/test.jsonl."
        raise OpsError(
            "the test questions are not known, so they could enter the training data", fix
        )
    if not args.lost_runs and (args.against or args.metric or args.run_data):
        option = next(o for o in ("against", "metric", "run_data") if getattr(args, o))
        raise OpsError(
            f"--{option.replace('_', '-')} has no effect without --run", "Add --run RUN."
        )
    sources = CorrectionSources(
        feedback=default_store() if args.feedback is USERS_STORE else args.feedback,
        runs=[RunSource(name, args.against, args.run_data, args.metric) for name in args.lost_runs],
        reviews=args.review,
    )
    out = args.out or DEFAULT_OUT
    screen = console(to_stderr=args.json)
    with screen.status("reading the corrections"):
        made = make_correction_data(sources, args.test, out)
    if args.json:
        print_text(json.dumps(made.to_json(), indent=2))
        return 0
    _print_report(made, out)
    _print_next(made, out, args.test[0])
    return 0


def _print_report(made: CorrectionData, out: Path) -> None:
    from rich import box
    from rich.table import Table

    rows, pairs = len(made.rows.taken), len(made.pairs.taken)
    print_text(f"{counted(rows, 'row')} and {counted(pairs, 'preference')}, in {out}")
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for source in made.sources:
        table.add_row(f"{source.source} {source.name}: records", f"{source.records:,}")
        _add_reasons(table, source.unused)
        table.add_row("  used", f"{source.used:,}")
    for name, selection in (("rows", made.rows), ("preferences", made.pairs)):
        _add_selection(table, name, selection)
    console().print(table)
    print_text(f"compared with {counted(made.test_questions, 'test question')}")


def _add_selection(table: Table, name: str, selection: Selection) -> None:
    total = len(selection.taken) + len(selection.excluded)
    table.add_row(f"examples for {name}", f"{total:,}")
    _add_reasons(table, selection.reasons)
    table.add_row("  taken", f"{len(selection.taken):,}")


def _add_reasons(table: Table, reasons: Mapping[str, int]) -> None:
    for reason, count in reasons.items():
        table.add_row(f"  - {reason}", f"{count:,}")


def _print_next(made: CorrectionData, out: Path, test: Path) -> None:
    from ..data import has_chats

    if made.rows.taken and not has_chats(test):
        print_text(
            f"{test} has questions without chats, so it cannot measure the loss; to train, give "
            "phi3 finetune --eval-file another file, such as the test.jsonl of phi3 data"
        )
    elif made.rows.taken:
        files = ("--train-file", out / "train.jsonl", "--eval-file", test)
        print_next("phi3", "finetune", "--local", "--model", "smollm2", *files)
    else:
        print_next("phi3", "data", "--source", out / "pairs.jsonl", "--out", out / "preferences")
