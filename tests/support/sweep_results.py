"""Results of sweeps from scores that a test gives, without an endpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi3_ops.comparison.thresholds import Metric, Thresholds
from phi3_ops.runs.records import LineUsage
from phi3_ops.runs.scored import ScoredRun
from phi3_ops.runs.store import RunOutputs
from phi3_ops.sweeps.analysis import analyse
from phi3_ops.sweeps.cells import LETTERS, Cell
from phi3_ops.sweeps.config import SweepConfig
from phi3_ops.sweeps.plan import SweepPlan
from phi3_ops.sweeps.results import SweepResult
from phi3_ops.sweeps.runner import CellRun

FAILED = "failed"  # in a column of scores: the line has no answer
PRICE = {"prompt": 0.1, "completion": 0.2}


def sweep_result(
    folder: Path,
    *columns: Sequence[Any],
    higher_is_better: bool = True,
    names: Sequence[str] = (),
    **fields: Any,
) -> SweepResult:
    """Return the result of a sweep with one cell for each column of scores.

    Args:
        folder: folder for the data file.
        columns: the scores of a cell; None is an answered line without a score.
        higher_is_better: direction of the score.
        names: names of the prompts; others are `p0`, `p1`, …
        fields: further fields of the sweep.
    """
    lines = len(columns[0])
    data = folder / "data.jsonl"
    rows = [{"question": f"q{line}"} for line in range(lines)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = SweepConfig.model_validate(
        {"name": "trial", "flow": "qa", "data": data, "metrics": ["score"], **fields}
    )
    metric = Metric(higher_is_better=higher_is_better, range=(0, 1))
    cells = [
        _cell(number, (*names, *(f"p{n}" for n in range(len(names), 26)))[number], config)
        for number in range(len(columns))
    ]
    plan = SweepPlan(config, rows, cells, (), Thresholds(metrics={"score": metric}))
    runs = [
        _cell_run(cell, number, column, data)
        for number, (cell, column) in enumerate(zip(cells, columns))
    ]
    return analyse(plan, runs, in_flight=4)


def _cell(number: int, prompt: str, config: SweepConfig) -> Cell:
    connection = config.connections[0] if config.connections else None
    return Cell(
        LETTERS[number],
        prompt,
        connection,
        {"t": number / 10},
        Path("flow"),
        "sha",
        {},
        {},
        1,
        f"fingerprint{number}",
    )


def _cell_run(cell: Cell, number: int, column: Sequence[Any], data: Path) -> CellRun:
    answered = [line for line, value in enumerate(column) if value != FAILED]
    scored = RunOutputs({line: {"score": column[line]} for line in answered})
    asked = RunOutputs({line: {"answer": "text"} for line in answered})
    usage = {line: LineUsage(1.0 + number + line / 100, 10, 5) for line in answered}
    run = ScoredRun(cell.label, data, scored, asked)
    return CellRun(cell, f"run-{cell.letter}", [f"run-{cell.letter}-eval"], run, usage)
