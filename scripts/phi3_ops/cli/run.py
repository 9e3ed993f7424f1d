"""`phi3 run`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..names import name_argument
from ..terminal import console, print_text
from . import run_azure
from ._columns import add_column_mapping, parse_column_mapping
from ._common import add_engine, positive_int
from ._next_step import after_run
from ._progress import progress_display
from ._records import add_json, messages_to_stderr
from ._scores import ScoredBatch, print_batch, print_scores_as_json, score_table

if TYPE_CHECKING:
    from ..flows import FlowDefinition
    from ..runs import Batch, ProgressCallback

INTERRUPTED = 130


@dataclass(frozen=True)
class Outcome:
    """The batches that the command ran, and its exit code."""

    exit_code: int
    batches: Sequence[ScoredBatch] = ()


@dataclass(frozen=True)
class FailureLimit:
    """How many lines may fail before the command fails: a number, or a percentage of the lines."""

    value: float
    is_percentage: bool = False

    def exit_code(self, failed: int, lines: int) -> int:
        """Return 1 if more lines failed than the limit allows, else 0."""
        allowed = lines * self.value / 100 if self.is_percentage else self.value
        return 1 if failed > allowed else 0


def failure_limit(text: str) -> FailureLimit:
    """Parse a number or a percentage for argparse."""
    is_percentage = text.endswith("%")
    try:
        value = float(text.removesuffix("%")) if is_percentage else int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= (100 if is_percentage else sys.maxsize):
        raise argparse.ArgumentTypeError(
            f"{text} is neither a number of lines nor a percentage; use for example 5 or 2%"
        )
    return FailureLimit(value, is_percentage)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run a flow over a data file, many lines at once. `phi3 runs` lists the runs. Where Prompt flow "
        "is installed, they are in its store, so `pf run show-details` and the like work too. Exit code: "
        "0; 1 if more lines failed than --max-failures allows; 130 after a Ctrl-C, which keeps all "
        "answers."
    )
    _add_source_options(parser)
    add_engine(parser)
    _add_batch_options(parser)
    add_json(parser)
    run_azure.arguments(parser)
    parser.epilog = (
        "example:\n  phi3 run --flow qa --data .phi3/data/questions.jsonl \\\n"
        "    --column-mapping input_data='${data.question}' --evaluate"
    )


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--flow", type=Path, help="folder of a flow, or name of a shipped flow")
    parser.add_argument(
        "--app",
        metavar="DIR|MODULE:FUNCTION",
        help="run this code instead of a flow: a folder of `phi3 flow export`, or a function that makes "
        "a new workflow of Agent Framework",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="data file, JSONL with one row per line"
    )
    add_column_mapping(parser)
    parser.add_argument(
        "--run", dest="base", metavar="NAME", help="base run, whose outputs the flow also reads"
    )
    parser.add_argument(
        "--connection",
        type=name_argument,
        help="connection for every node (default: the connections of the flow)",
    )
    parser.add_argument(
        "--variant",
        metavar="NODE.VARIANT",
        help="variant of a node, instead of its default one",
    )


def _add_batch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--evaluate",
        nargs="?",
        const=Path("eval"),
        type=Path,
        metavar="FLOW",
        help="score the answers with this flow afterwards (default: the shipped flow eval)",
    )
    parser.add_argument(
        "--replay",
        action="store_true",
        help="treat each row as a conversation (`messages`), and send it turn by turn, after the "
        "model's own answers",
    )
    parser.add_argument(
        "--resume",
        metavar="NAME",
        help="run the missing and the failed lines of this run (a display name stands for its newest "
        "run)",
    )
    parser.add_argument(
        "--name", type=name_argument, help="display name of the run (default: the name of the flow)"
    )
    parser.add_argument(
        "--in-flight",
        type=positive_int,
        default=16,
        metavar="N",
        help="number of lines that run at once; lower while the endpoint answers 429 "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--max-failures",
        type=failure_limit,
        default=FailureLimit(0),
        metavar="N|P%",
        help="exit 1 only if more than this many lines (or this share) fail (default: 0)",
    )


def run(args: argparse.Namespace) -> int:
    if problem := _misuse(args) or run_azure.misuse(args):
        print_text(f"phi3 run: {problem}; see phi3 run --help", to_stderr=True)
        return 2
    _check_evaluation(args)
    with messages_to_stderr(args.json):
        outcome = _outcome(args)
    if args.json:
        print_scores_as_json(outcome.batches)
    return outcome.exit_code


def _outcome(args: argparse.Namespace) -> Outcome:
    """Run what the options ask for, and print the results as text."""
    if run_azure.is_requested(args):
        return _run_on_azure(args)
    if args.engine == "promptflow":
        from ..pf import require_promptflow, untested_warning

        require_promptflow("--engine promptflow")
        if warning := untested_warning():
            print_text(f"warning: {warning}", to_stderr=True)
    return _replay(args) if args.replay else _run_here(args)


def _misuse(args: argparse.Namespace) -> str | None:
    """Return what is wrong about the combination of options, or None."""
    if args.resume and (args.flow or args.data or args.base or args.replay or args.app):
        return "--resume takes flow, data and base from the run that it resumes"
    if args.app and (args.flow or args.base or args.replay or args.connection or args.variant):
        return "--app runs its own code, so it excludes --flow, --run, --replay and --connection"
    if args.app and args.engine == "promptflow":
        return "--app does not run on Prompt flow's engine"
    if not args.resume and not ((args.flow or args.app) and args.data):
        return "add --flow and --data, or --resume"
    return None


def _run_here(args: argparse.Namespace) -> Outcome:
    from ..runs import earlier_run, resume_run, run_name

    started = time.monotonic()
    old_name = _newest(args.resume, run_name(args.resume)) if args.resume else None
    with progress_display() as display:
        if old_name:
            batch = resume_run(
                old_name, in_flight=args.in_flight, on_progress=display, engine=args.engine
            )
        else:
            batch = _run_app(args, display) if args.app else _run_flow(args, display)
    if batch.name == old_name:
        answered = f"{len(batch.answers):,} of {batch.lines:,} lines are answered"
        print_text(f"{batch.name} is complete: {answered}; nothing to do")
    else:
        print_batch(batch, time.monotonic() - started, display.tokens)
    outcome = _finish(args, batch)
    after_run(batch.name, failed=batch.failed, earlier=earlier_run(batch.name))
    return outcome


def _newest(reference: str, name: str) -> str:
    """Return the name of a run, and print it if the user gave the display name of several runs."""
    if name != reference:
        print_text(f"{reference} is the newest run of that name, {name}")
    return name


def _check_evaluation(args: argparse.Namespace) -> None:
    """Raise OpsError if the flow of `--evaluate` could not score the answers."""
    if not args.evaluate:
        return
    from ..flows import FlowDefinition
    from ..runs import check_evaluation, check_evaluation_of_run

    evaluation = FlowDefinition.read(args.evaluate)
    if args.resume:
        check_evaluation_of_run(evaluation, args.resume)
    elif not (args.replay or args.app):  # the data of a replay are made from the conversations
        check_evaluation(evaluation, FlowDefinition.read(args.flow), args.data)


def _run_app(args: argparse.Namespace, on_progress: ProgressCallback) -> Batch:
    from ..runs import run_app

    folder = Path(args.app)
    return run_app(
        args.app,
        args.data,
        parse_column_mapping(args.column_mapping),
        title=args.name or (folder.resolve().name if folder.is_dir() else "app"),
        in_flight=args.in_flight,
        on_progress=on_progress,
    )


def _run_flow(args: argparse.Namespace, on_progress: ProgressCallback) -> Batch:
    from ..flows import FlowDefinition
    from ..runs import choose_columns, load_batch, run_flow

    flow = FlowDefinition.read(args.flow)
    base = load_batch(args.base) if args.base else None
    if base:
        _newest(args.base, base.name)
    return run_flow(
        flow.folder,
        args.data,
        choose_columns(flow, args.data, parse_column_mapping(args.column_mapping), base),
        title=_title(args, flow),
        base=base,
        connections=flow.connections(args.connection) if args.connection else None,
        in_flight=args.in_flight,
        on_progress=on_progress,
        engine=args.engine,
        variant=args.variant,
    )


def _run_on_azure(args: argparse.Namespace) -> Outcome:
    from ..flows import FlowDefinition
    from ..runs import choose_columns

    flow = FlowDefinition.read(args.flow)
    columns = choose_columns(flow, args.data, parse_column_mapping(args.column_mapping))
    batch = run_azure.run_batch(args, flow, columns, _title(args, flow))
    if batch is None:
        return Outcome(0)
    print_batch(batch)
    return _finish(args, batch)


def _replay(args: argparse.Namespace) -> Outcome:
    from ..flows import FlowDefinition
    from ..runs import count_unanswered_turns, replay_conversations

    flow = FlowDefinition.read(args.flow)
    with progress_display() as display:
        turns = replay_conversations(
            flow.folder,
            args.data,
            paths.WORKDIR / "replays",
            title=_title(args, flow),
            connections=flow.connections(args.connection) if args.connection else None,
            in_flight=args.in_flight,
            on_progress=display,
            engine=args.engine,
        )
    batches = []
    for turn in turns:
        print_text(f"turn {turn.number}: ", end="")
        print_batch(turn.asked)
        scores = None if turn.interrupted else _evaluate(args, turn.asked)
        batches.append(ScoredBatch(turn.asked, scores))
    if turns and turns[-1].interrupted:
        counts = turns[-1].asked.counts
        print_text(f"phi3: interrupted in turn {len(turns)}: {counts}", to_stderr=True)
        return Outcome(INTERRUPTED, batches)
    unanswered = count_unanswered_turns(args.data, turns)
    print_text(f"{unanswered} turns without an answer, including those after a failed turn")
    answered = sum(len(turn.asked.answers) for turn in turns)
    return Outcome(_exit_code(args, unanswered, unanswered + answered), batches)


def _finish(args: argparse.Namespace, batch: Batch) -> Outcome:
    """Score a batch if the user wants it."""
    scores = _evaluate(args, batch)
    exit_code = _exit_code(args, batch.failed, batch.lines)
    return Outcome(exit_code, [ScoredBatch(batch, scores)])


def _exit_code(args: argparse.Namespace, failed: int, lines: int) -> int:
    limit: FailureLimit = args.max_failures
    return limit.exit_code(failed, lines)


def _evaluate(args: argparse.Namespace, batch: Batch) -> Batch | None:
    """Score a batch if the user wants it, and print the scores over all lines, also the failed ones.

    Returns:
        The run with the scores, or None if the batch was not scored.
    """
    if not args.evaluate:
        return None
    if not batch.answers:
        print_text("not scored: no line was answered")
        return None
    from ..flows import FlowDefinition
    from ..runs import score_batch

    flow = FlowDefinition.read(args.evaluate)
    with progress_display() as display:
        scored = score_batch(
            flow, batch, in_flight=args.in_flight, on_progress=display, engine=args.engine
        )
    console().print(score_table(scored))
    return scored


def _title(args: argparse.Namespace, flow: FlowDefinition) -> str:
    return args.name or flow.folder.resolve().name
