"""`phi3 run`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import paths
from . import run_azure
from ._common import console, whole

if TYPE_CHECKING:
    from ..pf import ConcurrencyLimit
    from ..runs import Batch, BatchProgress, ProgressCallback

INTERRUPTED = 130
PLAIN_EVERY_S = 5.0  # a line of progress, where standard error is no terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run a flow over a data file, many lines at once, into prompt flow's own store (`pf run "
        "show-details` and the like work). Exit code: 0, or 1 when more lines failed than "
        "--max-failures, 130 after Ctrl-C, which keeps what was answered."
    )
    parser.add_argument("--flow", type=Path, help="a flow's folder, or a shipped flow's name")
    parser.add_argument("--data", type=Path, metavar="FILE", help="JSONL, one line a row")
    parser.add_argument(
        "--column-mapping",
        nargs="+",
        default=[],
        metavar="INPUT=VALUE",
        help="such as input_data='${data.question}' (default: the column of the input's name)",
    )
    parser.add_argument(
        "--run", dest="base", metavar="NAME", help="base run, whose outputs the flow also reads"
    )
    parser.add_argument("--connection", help="connection of every node, in place of the flow's")
    parser.add_argument(
        "--evaluate",
        nargs="?",
        const=Path("eval"),
        type=Path,
        metavar="FLOW",
        help="score the answers with this flow afterwards (default: the shipped eval)",
    )
    parser.add_argument(
        "--replay",
        action="store_true",
        help="rows are conversations (`messages`): ask turn by turn, after the model's own answers",
    )
    parser.add_argument("--resume", metavar="NAME", help="run what is missing or failed in a run")
    parser.add_argument("--name", help="what the run is called in lists (default: the flow's name)")
    parser.add_argument(
        "--in-flight",
        type=whole,
        default=16,
        metavar="N",
        help="lines at once; fewer while the endpoint answers 429 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-failures",
        type=failures,
        default=(0, False),
        metavar="N|P%",
        help="failed lines that are no failure of the command (default: 0)",
    )
    run_azure.arguments(parser)


def failures(text: str) -> tuple[float, bool]:
    """A number of lines, or a share of them; and which of the two it is."""
    percent = text.endswith("%")
    value = float(text.rstrip("%")) if percent else int(text)
    if not 0 <= value <= (100 if percent else sys.maxsize):
        raise argparse.ArgumentTypeError(f"{text} is neither a number of lines nor a percentage")
    return value, percent


def run(args: argparse.Namespace) -> int:
    if args.resume and (args.flow or args.data or args.base or args.replay):
        return _usage("--resume takes flow, data and base from the run that it goes on with")
    if not args.resume and not (args.flow and args.data):
        return _usage("--flow and --data are needed, or --resume")
    if problem := run_azure.misuse(args):
        return _usage(problem)
    if run_azure.wanted(args):
        return _on_azure(args)
    from ..pf import engine_is_supported
    from ..runs import resume_run

    if not engine_is_supported():
        print(
            "phi3 run: this promptflow is not the one that is known (1.18): its own engine runs the "
            "lines, without heeding 429",
            file=sys.stderr,
        )
    if args.replay:
        return _replay(args)
    started = time.monotonic()
    with _progress() as watch:
        if args.resume:
            done = resume_run(args.resume, in_flight=args.in_flight, watch=watch)
        else:
            done = _run_flow(args, watch)
    _say(done, time.monotonic() - started, watch.tokens)
    if done.interrupted:
        print(f"interrupted; go on with: phi3 run --resume {done.name}")
        return INTERRUPTED
    if args.evaluate and done.answers:
        _evaluate(args, done)
    return _exit_code(done.failed, done.lines, args.max_failures)


def _run_flow(args: argparse.Namespace, watch: ProgressCallback) -> Batch:
    from ..files import read_jsonl
    from ..flows import FlowDefinition
    from ..runs import load_batch, run_flow

    flow = FlowDefinition.read(args.flow)
    data = read_jsonl(args.data)
    base = load_batch(args.base) if args.base else None
    columns = flow.columns(
        _pairs(args.column_mapping), _keys(data), _keys(base.answers.values()) if base else ()
    )
    return run_flow(
        flow.folder,
        args.data,
        columns,
        title=args.name or flow.folder.resolve().name,
        base=base,
        connections=flow.connections(args.connection) if args.connection else None,
        in_flight=args.in_flight,
        watch=watch,
    )


def _on_azure(args: argparse.Namespace) -> int:
    from ..files import read_jsonl
    from ..flows import FlowDefinition

    flow = FlowDefinition.read(args.flow)
    columns = flow.columns(_pairs(args.column_mapping), _keys(read_jsonl(args.data)))
    done = run_azure.batch(args, flow, columns)
    if done is None:
        return 0
    _say(done)
    if args.evaluate and done.answers:
        _evaluate(args, done)
    return _exit_code(done.failed, done.lines, args.max_failures)


def _evaluate(args: argparse.Namespace, base: Batch) -> None:
    """Score a batch, and print the scores over all lines, the failed ones included."""
    from ..files import read_jsonl
    from ..flows import FlowDefinition
    from ..runs import find_run, run_flow

    flow = FlowDefinition.read(args.evaluate)
    data = Path(find_run(base.name).data)
    rows = read_jsonl(data)
    columns = flow.columns({}, _keys(rows), _keys(base.answers.values()))
    title = f"{base.name}-{flow.folder.resolve().name}"
    with _progress() as watch:
        scored = run_flow(
            flow.folder,
            data,
            columns,
            title=title,
            base=base,
            in_flight=args.in_flight,
            watch=watch,
        )
    console().print(_scores(scored))


def _replay(args: argparse.Namespace) -> int:
    from ..flows import FlowDefinition
    from ..runs import count_unanswered_turns, replay_conversations

    flow = FlowDefinition.read(args.flow)
    with _progress() as watch:
        turns = replay_conversations(
            flow.folder,
            args.data,
            paths.WORKDIR / "replays",
            title=args.name or flow.folder.resolve().name,
            connections=flow.connections(args.connection) if args.connection else None,
            in_flight=args.in_flight,
            watch=watch,
        )
    for turn in turns:
        print(f"turn {turn.number}: ", end="")
        _say(turn.asked)
        if args.evaluate and turn.asked.answers and not turn.asked.interrupted:
            _evaluate(args, turn.asked)
    if any(turn.asked.interrupted for turn in turns):
        return INTERRUPTED
    lost = count_unanswered_turns(args.data, turns)
    print(f"{lost} turns without an answer, those after a failed one included")
    answered = sum(len(turn.asked.answers) for turn in turns)
    return _exit_code(lost, lost + answered, args.max_failures)


def _exit_code(failed: int, lines: int, allowed: tuple[float, bool]) -> int:
    most, percent = allowed
    return 1 if failed > (lines * most / 100 if percent else most) else 0


def _say(done: Batch, seconds: float | None = None, tokens: int = 0) -> None:
    rate = f", {seconds:.1f} s, {done.lines / seconds:.1f} lines/s" if seconds else ""
    counted = f", {tokens:,} tokens" if tokens else ""
    print(f"{done.name}: {done.lines} lines, {done.failed} failed{rate}{counted}")
    if done.failed and done.reason:
        print(f"  the first of them: {done.reason}")
    print(f"  see them: pf run show-details --name {done.name}")


def _scores(scored: Batch) -> Any:
    from rich import box
    from rich.table import Table

    from phi3_tools.evaluation import mean_of

    table = Table(box=box.SIMPLE_HEAD, title=f"{scored.name} (a line without an answer counts 0)")
    for head in ("metric", "mean", "± standard error", "n"):
        table.add_column(head, justify="left" if head == "metric" else "right")
    for name in _keys(scored.answers.values()):
        values = [answer[name] for answer in scored.answers.values()]
        numbers = [float(value) for value in values if isinstance(value, (int, float))]
        if numbers:
            mean = mean_of(numbers, failures=scored.lines - len(numbers))
            table.add_row(name, f"{mean.mean:.4f}", f"{mean.stderr:.4f}", str(mean.n))
    return table


def _pairs(words: Sequence[str]) -> dict[str, str]:
    from ..errors import OpsError

    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise OpsError(f"--column-mapping {word!r} is no INPUT=VALUE", "Such as q='${data.q}'.")
        pairs[name] = value
    return pairs


def _keys(rows: Any) -> list[str]:
    """Every key of some rows, in the order in which they are met."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _usage(problem: str) -> int:
    print(f"phi3 run: {problem}; see phi3 run --help", file=sys.stderr)
    return 2


class _Shown:
    """Progress on standard error: a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, bar: Any) -> None:
        self.tokens = 0
        self._bar = bar
        self._task: Any = None
        self._started = time.monotonic()
        self._next = PLAIN_EVERY_S

    def __call__(self, count: BatchProgress, pace: ConcurrencyLimit) -> None:
        self.tokens = count.tokens
        seconds = time.monotonic() - self._started
        figures: Mapping[str, Any] = {
            "rate": count.done / max(seconds, 1e-9),
            "failed": count.failed,
            "tokens": count.tokens,
            "in_flight": pace.in_flight,
        }
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("lines", total=count.lines, **figures)
            self._bar.update(self._task, completed=count.done, total=count.lines, **figures)
        elif seconds >= self._next:
            self._next = seconds + PLAIN_EVERY_S
            left = (count.lines - count.done) / figures["rate"]
            print(
                f"{count.done}/{count.lines} lines, {figures['rate']:.1f} lines/s, {left:.0f} s left, "
                f"{count.failed} failed, {count.tokens:,} tokens, {pace.in_flight} in flight",
                file=sys.stderr,
                flush=True,
            )


@contextmanager
def _progress() -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield _Shown(None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    out = Console(stderr=True)
    if not out.is_terminal:
        yield _Shown(None)
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} lines/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TextColumn("{task.fields[tokens]:,} tokens"),
        TextColumn("{task.fields[in_flight]} in flight"),
    )
    with Progress(*columns, console=out, transient=True) as bar:
        yield _Shown(bar)
