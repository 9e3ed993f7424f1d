"""`phi3 review`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terminal import console, one_line, print_text
from ._common import integer, port, positive_int
from ._next_step import print_next

if TYPE_CHECKING:
    from ..review import Judgement, ReviewedData, ReviewedRun, ReviewSettings


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Judge the answers of runs on a page of this machine: rate them from 1 to 5, choose the better "
        "one, correct and flag them. The page does not say which run an answer is of. Each judgement is "
        "stored at once in review.jsonl in the folder of the run. The next start goes on where the last "
        "one stopped."
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="name or display name of a run, a folder of a run, or a JSONL file; several runs over the "
        "same data are shown side by side",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="data file (default: the file that the runs record)",
    )
    parser.add_argument(
        "--rubric",
        metavar="NAME",
        help="rubric by which the answers are judged (default: correctness, or relevance if the data has "
        "no references)",
    )
    parser.add_argument(
        "--lines",
        type=positive_int,
        metavar="N",
        help="number of lines to judge, a random sample (default: all lines in random order)",
    )
    parser.add_argument(
        "--seed",
        type=integer,
        default=1,
        help="seed of the order of the lines and of the answers (default: %(default)s)",
    )
    parser.add_argument(
        "--judge",
        action="append",
        default=[],
        metavar="RUN",
        help="evaluation to show and to compare with; repeatable (default: all evaluations of "
        "the runs)",
    )
    parser.add_argument(
        "--port",
        type=port,
        default=0,
        help="port to listen on, 0 for a free one (default: %(default)s)",
    )
    _add_results(parser)


def _add_results(parser: argparse.ArgumentParser) -> None:
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--summary",
        action="store_true",
        help="print the ratings and the agreement with the judges, and open no page",
    )
    action.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="write the map from the judge's scores to ratings, for phi3 compare --calibration",
    )
    action.add_argument(
        "--panel",
        type=Path,
        metavar="FILE",
        help="write the mean score of several judges by line to a JSONL file, for phi3 compare",
    )
    parser.add_argument("--json", action="store_true", help="print JSON; only with --summary")


def run(args: argparse.Namespace) -> int:
    from phi3_tools.evaluation import select_rubric

    from ..errors import OpsError
    from ..installation import install_command

    try:
        from ..review import ReviewSettings, choose_rubric, load_judgements, load_runs
    except ModuleNotFoundError as error:
        what = f"the package {error.name} is not installed"
        raise OpsError(what, install_command("eval")) from error

    _refuse_unused_options(args)
    name = select_rubric(args.rubric).name if args.rubric else None
    with console(to_stderr=True).status("reading the runs"):
        runs, data = load_runs(args.runs, args.data, args.judge)
        judgements = load_judgements(runs)
    rubric = choose_rubric(data, judgements, name)
    if args.summary:
        return _print_summary(runs, data, judgements, rubric, as_json=args.json)
    if args.calibrate:
        return _calibrate(args.calibrate, runs, judgements, rubric)
    if args.panel:
        return _write_panel(args.panel, runs)
    _serve(runs, data, ReviewSettings(rubric, args.lines, args.seed), args.port)
    data_file = ("--data", args.data) if args.data else ()
    print_next("phi3", "review", *(one_line(run.title) for run in runs), *data_file, "--summary")
    return 0


def _refuse_unused_options(args: argparse.Namespace) -> None:
    """End with an error about an option that has no effect with the other ones."""
    if args.json and not args.summary:
        args.parser.error("--json needs --summary")
    if args.panel and args.rubric:
        args.parser.error("--rubric has no effect with --panel, which writes all rubrics")
    if args.summary or args.calibrate or args.panel:
        for name in ("lines", "seed", "port"):
            if getattr(args, name) != args.parser.get_default(name):
                args.parser.error(f"--{name} is for the page, which is not opened here")


def _serve(
    runs: Sequence[ReviewedRun], data: ReviewedData, settings: ReviewSettings, port: int
) -> None:
    from ..chat import serve_app
    from ..network import base_url, bind_socket
    from ..review import ReviewSession, make_review_app, new_token, sections, summarise_review

    session, token = ReviewSession(runs, data, settings), new_token()

    def summary() -> dict[str, Any]:
        result = summarise_review(runs, data, session.judgements, settings.rubric)
        return {"sections": sections(result)}

    def ready() -> None:
        progress = session.overview()
        print_text(f"{progress['judged']} of {progress['lines']} lines are judged")
        print_text(f"open {base_url('127.0.0.1', sock)}/{token}/ in a browser")
        print_text("Ctrl-C stops; everything that was judged is stored")

    with bind_socket("127.0.0.1", port) as sock:
        app = make_review_app(session, token, summary)
        serve_app(app, sock, ready, abandon=lambda: None)


def _print_summary(
    runs: Sequence[ReviewedRun],
    data: ReviewedData,
    judgements: Sequence[Judgement],
    rubric: str,
    *,
    as_json: bool,
) -> int:
    from ..review import sections, summarise_review

    summary = summarise_review(runs, data, judgements, rubric)
    if as_json:
        print_text(json.dumps(summary.to_json(), indent=2, allow_nan=False))
        return 0
    for section in sections(summary):
        print_text(one_line(section["title"]))
        for line in section["lines"]:
            print_text(f"  {one_line(line)}")
        for table in section["tables"]:
            _print_table(table)
        print_text("")
    return 0


def _print_table(content: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=content["caption"], title_justify="left", box=box.SIMPLE_HEAD)
    numeric = [all(not isinstance(cell, str) for cell in cells) for cells in zip(*content["rows"])]
    for name, is_numeric in zip(content["head"], numeric):
        table.add_column(name, justify="right" if is_numeric else "left", overflow="fold")
    for row in content["rows"]:
        table.add_row(*("–" if cell is None else one_line(str(cell)) for cell in row))
    console().print(table)


def _calibrate(
    file: Path, runs: Sequence[ReviewedRun], judgements: Sequence[Judgement], rubric: str
) -> int:
    from ..review import make_calibration, write_calibration

    calibration = make_calibration(runs, judgements, rubric)
    write_calibration(file, calibration)
    print_text(
        f"{calibration.judge}, {rubric}: mean difference from {calibration.n} ratings "
        f"{calibration.error_before:.3f} before, {calibration.error_after:.3f} after (cross-validated)"
    )
    for score, rating in calibration.points:
        print_text(f"  score {score:g} stands for a rating of {rating:.2f}")
    print_text(f"written: {file}")
    print_next("phi3", "compare", "A", "B", "--metric", rubric, "--calibration", file)
    return 0


def _write_panel(file: Path, runs: Sequence[ReviewedRun]) -> int:
    from ..review import write_panel

    rubrics = write_panel(file, runs)
    print_text(f"written: {file}, with the mean scores by {', '.join(rubrics)}")
    print_next("phi3", "compare", "A", file, "--data", runs[0].data)
    return 0
