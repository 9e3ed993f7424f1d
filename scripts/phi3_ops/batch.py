"""Batches: a flow over a data file, scores bound to it, and every line counted."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3_tools import metrics

from . import paths, pf
from .connect import first_line
from .errors import OpsError
from .files import read_jsonl

IN_FLIGHT = 16
LINE_NUMBER = "line_number"


@dataclass(frozen=True)
class Batch:
    """A finished run in prompt flow's store.

    Attributes:
        name: for `pf run show-details --name`.
        answers: line number (from 0) -> the line's outputs; a failed line is not there.
        lines: lines of the data file.
        reason: why the first of the failed lines failed, or None.
    """

    name: str
    answers: Mapping[int, Mapping[str, Any]]
    lines: int
    reason: str | None = None

    @property
    def failed(self) -> int:
        return self.lines - len(self.answers)


def run_flow(
    flow: Path,
    data: Path,
    columns: Mapping[str, str],
    *,
    title: str,
    base: Batch | None = None,
    connections: Mapping[str, Mapping[str, str]] | None = None,
    in_flight: int = IN_FLIGHT,
) -> Batch:
    """Run a flow over a JSONL file, or over a run's outputs, with promptflow's own engine.

    Args:
        flow: the flow's folder.
        data: the data file, one line a row.
        columns: flow input -> `${data.x}` or `${run.outputs.x}`.
        title: what the run is called in lists; its name gets the time and a random end.
        base: the run whose outputs `columns` refers to.
        connections: node -> input -> connection, in place of what the flow says.
        in_flight: lines at once.

    Raises:
        OpsError: the run failed as a whole. Lines that fail do not raise: see `Batch.failed`.
    """
    lines = len(read_jsonl(data))
    name = f"{title}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
    client = pf.client()
    with _workers(in_flight):
        try:
            run = client.run(
                flow=flow,
                data=data,
                run=base.name if base else None,
                column_mapping=dict(columns),
                connections=connections,
                name=name,
                display_name=title,
                # One process with the lines as tasks: 3 s of start instead of 20.
                batch_use_async=True,
            )
        except Exception as error:  # promptflow has no base class for what a run can raise
            raise OpsError(f"the batch {name} failed: {first_line(error)}") from error
    if run.status != "Completed":
        fix = f"See `pf run show --name {name}`."
        raise OpsError(f"the batch {name} ended as {run.status}", fix)
    folder = Path(run._output_path)
    return Batch(name, _outputs(folder), lines, _first_error(folder))


@contextmanager
def _workers(count: int):  # type: ignore[no-untyped-def]
    """promptflow reads the number of lines in flight from the environment."""
    before = os.environ.get("PF_WORKER_COUNT")
    os.environ["PF_WORKER_COUNT"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PF_WORKER_COUNT"]
        else:
            os.environ["PF_WORKER_COUNT"] = before


def _outputs(folder: Path) -> dict[int, dict[str, Any]]:
    file = folder / "flow_outputs" / "output.jsonl"
    if not file.is_file():
        return {}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    return {row.pop(LINE_NUMBER): row for row in rows}


def _first_error(folder: Path) -> str | None:
    try:
        error = json.loads((folder / "error.json").read_text(encoding="utf-8"))
        return str(error["additionalInfo"][0]["info"]["errors"][0]["error"]["message"])
    except (OSError, ValueError, LookupError):
        return None


def evaluate(data: Path, *, title: str, connection: str) -> tuple[Batch, Batch]:
    """Ask flows/qa every question of a data file, then score the answers with flows/eval.

    Args:
        data: JSONL with `question` and `ground_truth`.
        title: of the two runs.
        connection: of the endpoint to ask.

    Returns:
        The run of the answers and the run of the scores.

    Raises:
        OpsError: no line was answered, so that there is nothing to score.
    """
    asked = run_flow(
        paths.FLOWS / "qa",
        data,
        {"input_data": "${data.question}"},
        title=title,
        connections={"answer": {"connection": connection}},
    )
    if not asked.answers:
        raise OpsError(f"all {asked.lines} lines of {asked.name} failed: {asked.reason}")
    scored = run_flow(
        paths.FLOWS / "eval",
        data,
        {"answer": "${run.outputs.answer}", "ground_truth": "${data.ground_truth}"},
        title=f"{title}-eval",
        base=asked,
    )
    return asked, scored


def by_kind(
    rows: Sequence[Mapping[str, Any]], scored: Batch, metric: str = "exact_match"
) -> dict[str, metrics.Mean]:
    """A metric's mean for each `kind` of row. A line without a score failed, and counts 0.

    Args:
        rows: the data file's rows, in order.
        scored: the run of flows/eval over it.
        metric: one of that flow's outputs.
    """
    kinds: dict[str, list[float]] = {}
    for line, row in enumerate(rows):
        value = scored.answers.get(line, {}).get(metric)
        kinds.setdefault(row["kind"], []).append(value if isinstance(value, (int, float)) else 0.0)
    return {kind: metrics.mean_of(values) for kind, values in kinds.items()}
