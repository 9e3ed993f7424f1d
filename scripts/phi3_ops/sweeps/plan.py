"""The plan of a sweep: its cells, and an estimate of its calls, tokens and time."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..comparison import Thresholds
from ..errors import OpsError
from ..files import read_jsonl
from ..flows import FlowDefinition
from ..pf import StoredRun
from ..runs import LineUsage, RunProperties, furthest_run, lines_left, list_runs, usage_of_run
from .cells import Cell, make_cells
from .config import SweepConfig
from .evaluations import Evaluation, load_evaluations, merged_thresholds

BYTES_PER_TOKEN = 4  # of English text
LEAST_LINES = 5  # answered lines of an earlier run that make an estimate
UNKNOWN = "unknown"


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that has been checked.

    Attributes:
        config: the content of its file.
        rows: the rows of the data.
        cells: the cells, the baseline first.
        evaluations: the flows that score the answers.
        thresholds: directions and ranges of the scores.
    """

    config: SweepConfig
    rows: Sequence[Mapping[str, Any]]
    cells: Sequence[Cell]
    evaluations: Sequence[Evaluation]
    thresholds: Thresholds

    @property
    def lines(self) -> int:
        """The number of lines in the data."""
        return len(self.rows)


def make_plan(config: SweepConfig, staging: Path) -> SweepPlan:
    """Check a sweep without calling an endpoint, and return its plan.

    Args:
        config: the content of the sweep's file.
        staging: folder in which the flows of the cells are written.

    Raises:
        OpsError: something that the file names does not exist or does not fit.
    """
    if config.data.exists() and not config.data.is_file():  # a device can be endless
        what = f"{config.data} is not a regular file"
        raise OpsError(what, "Give a file with one JSON object per line.")
    rows = read_jsonl(config.data)
    if not rows:
        raise OpsError(f"{config.data} is empty", "Give a file with one JSON object per line.")
    cells = make_cells(config, staging)
    columns = dict.fromkeys(name for row in rows for name in row)
    outputs = {cell.prompt: FlowDefinition.read(cell.flow).outputs for cell in cells}
    evaluations = load_evaluations(config, columns, outputs)
    return SweepPlan(config, rows, cells, evaluations, merged_thresholds(evaluations))


@dataclass(frozen=True)
class CellEstimate:
    """What one cell still takes. Unknown numbers are None.

    Attributes:
        letter: letter of the cell.
        cell: the cell in words.
        answered: number of lines that an earlier start has answered.
        calls: number of calls to answer the other lines.
        judge_calls: least number of calls to score all lines; 0 without a judge.
        prompt_tokens: tokens of the prompts.
        completion_tokens: tokens of the answers.
        seconds: time for the answers.
        cost: cost of the answers, in the currency of the sweep.
        basis: what the estimate is based on.
    """

    letter: str
    cell: str
    answered: int
    calls: int
    judge_calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float | None
    cost: float | None
    basis: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(plan: SweepPlan, in_flight: int, *, retry_failed: bool = False) -> list[CellEstimate]:
    """Estimate calls, tokens and time of each cell.

    The estimate is based on an earlier run through the same connection. Without one, it is based on the
    lengths of the data, and the time is unknown.

    Args:
        plan: the sweep.
        in_flight: number of lines that run at once.
        retry_failed: whether failed lines run again.
    """
    earlier = _earlier_usage()
    estimates = []
    for cell in plan.cells:
        run = furthest_run(cell.title(plan.config.name))
        missing = lines_left(run, plan.lines, retry_failed=retry_failed)
        estimates.append(_cell_estimate(plan, cell, run, missing, earlier, in_flight))
    return estimates


@dataclass(frozen=True)
class _EarlierUsage:
    run: str
    usage: Sequence[LineUsage]


def _earlier_usage() -> dict[str, _EarlierUsage]:
    """Return connection -> what the lines of the newest run through it took."""
    earlier: dict[str, _EarlierUsage] = {}
    for run in list_runs():
        endpoints = RunProperties.from_properties(run.properties).endpoints or {}
        names = {facts.connection for facts in endpoints.values()} - earlier.keys()
        if run.base is not None or not names:  # a base run: the run scores answers
            continue
        usage = list(usage_of_run(run).values())
        if len(usage) >= LEAST_LINES:
            earlier |= dict.fromkeys(names, _EarlierUsage(run.name, usage))
    return earlier


def _cell_estimate(
    plan: SweepPlan,
    cell: Cell,
    run: StoredRun | None,
    missing: int,
    earlier: Mapping[str, _EarlierUsage],
    in_flight: int,
) -> CellEstimate:
    connection = cell.connection or _own_connection(cell)
    known = earlier.get(connection) if connection else None
    if known is not None:
        prompt_tokens, completion_tokens, seconds = _from_usage(known.usage, missing, in_flight)
        basis = f"tokens and time of {known.run}"
    else:
        prompt_tokens, completion_tokens = _from_lengths(plan.rows, cell, missing)
        seconds, basis = None, f"lengths of the data; the time is {UNKNOWN}"
    return CellEstimate(
        cell.letter,
        cell.label,
        len(usage_of_run(run)) if run else 0,
        missing * cell.calls_per_line,
        sum(_judge_calls(each, run, plan.lines) for each in plan.evaluations),
        prompt_tokens,
        completion_tokens,
        seconds,
        plan.config.cost(cell.connection, prompt_tokens, completion_tokens),
        basis if missing else "earlier runs: every line has run",
    )


def _judge_calls(evaluation: Evaluation, asked: StoredRun | None, lines: int) -> int:
    """Return the least number of calls to score the lines that are not scored yet."""
    run = (
        furthest_run(evaluation.title(asked.name)) if asked and evaluation.calls_per_line else None
    )
    return lines_left(run, lines) * evaluation.calls_per_line


def _own_connection(cell: Cell) -> str | None:
    names = FlowDefinition.read(cell.flow).connection_names({})
    return next(iter(names.values()), None)


def _from_usage(
    usage: Sequence[LineUsage], missing: int, in_flight: int
) -> tuple[int | None, int | None, float]:
    prompt = statistics.fmean(line.prompt_tokens for line in usage)
    completion = statistics.fmean(line.completion_tokens for line in usage)
    seconds = statistics.fmean(line.seconds for line in usage) * missing / in_flight
    has_tokens = prompt > 0 or not missing
    tokens = [round(mean * missing) if has_tokens else None for mean in (prompt, completion)]
    return tokens[0], tokens[1], round(seconds, 1)


def _from_lengths(
    rows: Sequence[Mapping[str, Any]], cell: Cell, missing: int
) -> tuple[int, int | None]:
    """Estimate tokens from the columns that the flow reads, its constants, and the references."""
    inputs = [source.removeprefix("${data.").removesuffix("}") for source in cell.columns.values()]
    texts = [str(row.get(name, name)) for row in rows for name in inputs]
    prompt = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    references = [json.dumps(row["ground_truth"]) for row in rows if row.get("ground_truth")]
    completion = sum(len(text.encode()) for text in references) if references else None
    scale = missing / len(rows) / BYTES_PER_TOKEN
    return round(prompt * scale), None if completion is None else round(completion * scale)
