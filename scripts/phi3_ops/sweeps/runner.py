"""Run the cells of a sweep one after the other, and score their answers. Answered lines run once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .. import paths
from ..errors import OpsError
from ..files import new_folder, try_lock
from ..flows import content_hash
from ..pf import find_stored_run
from ..runs import (
    SHORT_HASH,
    Batch,
    BatchInterrupted,
    BatchStopped,
    LineUsage,
    ProgressCallback,
    ScoredRun,
    choose_columns,
    continue_flow,
    load_scored_run,
    usage_of_run,
)
from .cells import Cell
from .evaluations import Evaluation
from .plan import SweepPlan

LOCK_FILE = "sweep.lock"  # in .phi3/sweeps/NAME, also if the results are written elsewhere
FLOWS_FOLDER = "flows"


@dataclass(frozen=True)
class CellRun:
    """A cell whose lines have run and are scored.

    Attributes:
        cell: the cell.
        run: name of the run of its answers.
        evaluations: names of the runs that scored them.
        scored: the answers with all scores.
        usage: line number -> what the line took, of the answered lines.
    """

    cell: Cell
    run: str
    evaluations: Sequence[str]
    scored: ScoredRun
    usage: Mapping[int, LineUsage]


@dataclass(frozen=True)
class SweepRunner:
    """Runs a sweep.

    Attributes:
        plan: the sweep.
        folder: folder of the sweep, for the flows of its cells.
        command: the command that goes on with the sweep, for messages.
        in_flight: maximum number of lines that run at once.
        retry_failed: whether to run failed lines again.
        on_cell: called with a cell before its lines run.
        on_progress: called whenever a line has ended.
    """

    plan: SweepPlan
    folder: Path
    command: str
    in_flight: int
    retry_failed: bool = False
    on_cell: Callable[[Cell], None] = lambda cell: None
    on_progress: ProgressCallback | None = None

    def run(self) -> list[CellRun]:
        """Run and score every cell.

        Raises:
            OpsError: a run stopped, for example because the endpoint cannot be reached; the answers so
                far are kept. Or another process runs the sweep. Failed lines do not raise.
            KeyboardInterrupt: a Ctrl-C stopped the sweep; the answers so far are kept.
        """
        with _lock(paths.WORKDIR / "sweeps" / self.plan.config.name):
            return [self._run_cell(cell) for cell in self.plan.cells]

    def _run_cell(self, cell: Cell) -> CellRun:
        self.on_cell(cell)
        where = f"cell {cell.letter} ({cell.label})"
        try:
            return self._ask_and_score(cell)
        except BatchInterrupted as error:
            what = f"interrupted in {where}: {error.batch.counts}; go on with: {self.command}"
            raise KeyboardInterrupt(what) from error
        except OpsError as error:
            # The fix of a stopped batch names another command.
            fix = f"{error.batch.counts}." if isinstance(error, BatchStopped) else error.fix
            fix = f"{fix} {self.command} goes on with the answers so far.".strip()
            raise OpsError(f"{where}: {error.what}", fix) from error

    def _ask_and_score(self, cell: Cell) -> CellRun:
        asked = continue_flow(
            _keep_flow(cell, self.folder / FLOWS_FOLDER),
            self.plan.config.data,
            cell.columns,
            title=cell.title(self.plan.config.name),
            connections=cell.connections or None,
            in_flight=self.in_flight,
            on_progress=self.on_progress,
            retry_failed=self.retry_failed,
        )
        scores = (
            [self._score(each, asked) for each in self.plan.evaluations] if asked.answers else []
        )
        scored = load_scored_run(scores[0].name if scores else asked.name, self.plan.config.data)
        for batch in scores[1:]:
            scored = _with_more_scores(scored, load_scored_run(batch.name, self.plan.config.data))
        run = find_stored_run(asked.name)
        usage = usage_of_run(run) if run else {}
        named = replace(scored, name=cell.label)
        return CellRun(cell, asked.name, [batch.name for batch in scores], named, usage)

    def _score(self, evaluation: Evaluation, asked: Batch) -> Batch:
        flow, data = evaluation.definition, self.plan.config.data
        return continue_flow(
            flow.folder,
            data,
            choose_columns(flow, data, evaluation.columns, asked),
            title=evaluation.title(asked.name),
            base=asked,
            connections=evaluation.connections or None,
            in_flight=self.in_flight,
            on_progress=self.on_progress,
            retry_failed=self.retry_failed,
        )


def _keep_flow(cell: Cell, folder: Path) -> Path:
    """Return a copy of a cell's flow that stays, because an interrupted run needs it to go on."""
    target = folder / cell.flow_sha256[:SHORT_HASH]
    if not (target.is_dir() and content_hash(target) == cell.flow_sha256):
        with new_folder(target) as new:
            shutil.copytree(cell.flow, new)
    return target


def _with_more_scores(scored: ScoredRun, other: ScoredRun) -> ScoredRun:
    """Return a run with the scores of two evaluations; those of the first one count if both have one."""
    lines = sorted(scored.scored.rows.keys() | other.scored.rows.keys())
    rows = {
        line: {**other.scored.rows.get(line, {}), **scored.scored.rows.get(line, {})}
        for line in lines
    }
    return replace(scored, scored=replace(scored.scored, rows=rows))


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a sweep inside the block.

    Sweeps of one name have the same runs, wherever they write their results.

    Raises:
        OpsError: another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        what = f"cannot write {folder}: {error.strerror}"
        raise OpsError(what, "Check the permissions of the folder.") from error
    try:
        if not try_lock(descriptor):
            raise OpsError(f"another process runs the sweep in {folder}", "Wait for it.")
        yield
    finally:
        os.close(descriptor)
