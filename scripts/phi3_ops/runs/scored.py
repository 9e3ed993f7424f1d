"""Load runs that were scored: stored runs, or files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import read_jsonl
from ..pf import COMPLETED, StoredRun, list_stored_runs
from .lookup import find_run
from .properties import RunProperties
from .store import (
    SNAPSHOT,
    RowsByLine,
    RunOutputs,
    find_outputs_file,
    find_thresholds,
    read_rows_by_line,
    read_run_folder,
)

_FROM_DATA = re.compile(r"\$\{data\.([^}]+)\}")
# Columns whose names look like dates: Prompt flow reads data with pandas, which rewrites their values.
_DATES = re.compile(r"timestamp|modified$|date$|.*_(at|time)$", re.IGNORECASE)


@dataclass(frozen=True)
class ScoredRun:
    """A run with its scores, ready to be compared.

    Attributes:
        name: the name or path that the user gave.
        data: the data file of the run.
        scored: the scores: the outputs of an evaluation, or the rows of a file.
        asked: the answers that were scored, if they are a run of their own.
        thresholds: the thresholds file of the flow that scored, or None.
        note: which run was chosen, if the user did not name it.
        source: name of the stored run that has the scores, or the absolute path of the file or folder;
            empty if it is not known.
    """

    name: str
    data: Path
    scored: RunOutputs
    asked: RunOutputs | None = None
    thresholds: Path | None = None
    note: str = ""
    source: str = ""

    @property
    def answers(self) -> RowsByLine:
        """The answers. If they are not a run of their own: inputs and outputs of the scoring flow."""
        if self.asked:
            return self.asked.rows
        inputs = self.scored.inputs
        return {line: {**inputs.get(line, {}), **row} for line, row in self.scored.rows.items()}

    @property
    def facts(self) -> dict[str, str]:
        """How the run was made: its flow, its parameters, and the flow that scored it."""
        if not self.asked:
            return dict(self.scored.facts)
        scorer = {f"scored by: {name}": fact for name, fact in self.scored.facts.items()}
        return {**self.asked.facts, **scorer}

    @property
    def errors(self) -> dict[int, str]:
        """Why lines failed. An error of the answers comes before one of the scores."""
        return {**self.scored.errors, **(self.asked.errors if self.asked else {})}


@dataclass(frozen=True)
class RunLocation:
    """The run of the answers that a reference stands for.

    Attributes:
        name: name of the stored run; for a run in a file or a folder, the absolute path.
        path: the folder of the run, or the file.
    """

    name: str
    path: Path


def answers_location(reference: str) -> RunLocation:
    """Return where the answers of a run are stored.

    Args:
        reference: as in `load_scored_run`. An evaluation stands for the run that it scored.

    Raises:
        OpsError: the run does not exist.
    """
    path = Path(reference)
    if path.is_file() or path.suffix == ".jsonl" or find_outputs_file(path):
        if not path.exists():
            raise OpsError(f"{reference} does not exist", "Check the path.")
        return RunLocation(str(path.resolve()), path.resolve())
    run = _require_completed(reference)
    run = _require_completed(run.base) if run.base else run
    return RunLocation(run.name, run.folder)


def list_evaluations(name: str) -> list[str]:
    """Return the names of the completed evaluations of a stored run, the oldest first.

    Args:
        name: name of the run.
    """
    return [run.name for run in _evaluations_of(name)]


def load_scored_run(reference: str, data: Path | None = None) -> ScoredRun:
    """Load a stored run, or the results in a JSONL file or in the folder of a run.

    Args:
        reference: name or display name of an evaluation, or of a run that was evaluated (its newest
            evaluation is used), or a path.
        data: the data file, which replaces the recorded one. Files and folders do not record any.

    Raises:
        OpsError: the run does not exist, it has no scores, or it did not run over this data.
    """
    path = Path(reference)
    if path.is_file() or path.suffix == ".jsonl":
        file = _require_data(reference, data)
        rows_by_line = read_rows_by_line(path, len(read_jsonl(file)))
        run = ScoredRun(reference, file, RunOutputs(rows_by_line), source=str(path.resolve()))
    elif find_outputs_file(path):
        file, outputs = _require_data(reference, data), read_run_folder(path)
        thresholds, source = find_thresholds(path / SNAPSHOT), str(path.resolve())
        run = ScoredRun(reference, file, outputs, thresholds=thresholds, source=source)
    else:
        run = _load_stored(reference, data)
    line_count = len(read_jsonl(run.data))
    for results in (run.scored, run.asked):
        if results is not None:
            _check_line_numbers(reference, results.rows, run.data, line_count)
    return run


def _require_data(reference: str, data: Path | None) -> Path:
    if data is None:
        raise OpsError(f"{reference} does not record its data file", "Add --data FILE.")
    return data


def _check_line_numbers(reference: str, rows: RowsByLine, data: Path, count: int) -> None:
    """Raise OpsError if a row is not of a line of the data file."""
    highest = max(rows, default=-1)
    if highest >= count:
        raise OpsError(
            f"{reference} has line {highest}, but {data} has {count} lines (from 0)",
            "Set --data to the data file of the run.",
        )


# -- stored runs -----------------------------------------------------------------------------------


def _load_stored(name: str, data: Path | None) -> ScoredRun:
    run = _require_completed(name)
    base, scores, note = _find_pair(run)
    file = _require_data(f"the run {name}", data or _recorded_data(scores))
    if not file.is_file():
        what = f"the data file of the run {name} does not exist any more: {file}"
        raise OpsError(what, "Add --data FILE.")
    rows = read_jsonl(file)
    asked = _read_outputs(base, rows, file) if base else None
    notes = [f"{name} is the newest run of that name, {run.name}"] if run.name != name else []
    notes += [note] if note else []
    if base and asked:
        not_asked = len(rows) - len(asked.rows.keys() | asked.errors.keys())
        if not_asked:
            fix = f"phi3 run --resume {base.name}"
            notes.append(f"{not_asked:,} of the failed lines were never asked, see {fix}")
    return ScoredRun(
        name,
        file,
        scored=_read_outputs(scores, rows, file),
        asked=asked,
        # The flow's folder comes first, so that a changed threshold takes effect at once.
        thresholds=find_thresholds(scores.flow or Path(), scores.folder / SNAPSHOT),
        note="; ".join(notes),
        source=scores.name,
    )


def _require_completed(name: str) -> StoredRun:
    run = find_run(name)
    if run is None:
        what = f"the run {name!r} does not exist, nor does a file of that name"
        raise OpsError(what, "`phi3 runs` lists the runs.")
    if run.status != COMPLETED:
        raise OpsError(f"the run {name} is {run.status}", f"See `phi3 runs --show {name}`.")
    return run


def _find_pair(run: StoredRun) -> tuple[StoredRun | None, StoredRun, str]:
    """Return the run with the answers, the run with their scores, and a note on how it was chosen."""
    if run.base:
        return _require_completed(run.base), run, ""
    evaluations = _evaluations_of(run.name)
    if not evaluations:
        return None, run, ""
    newest = evaluations[-1]
    note = f"scored by {newest.name}"
    if len(evaluations) > 1:
        note += f", the newest of {len(evaluations)} evaluations"
    return run, newest, note


def _evaluations_of(name: str) -> list[StoredRun]:
    """Return the completed runs that read the outputs of a run, the oldest first."""
    runs = [run for run in list_stored_runs() if run.base == name and run.status == COMPLETED]
    return sorted(runs, key=lambda run: run.created_on)


def _recorded_data(run: StoredRun) -> Path | None:
    while not run.data and run.base:
        run = _require_completed(run.base)
    return run.data


def _read_outputs(run: StoredRun, rows: Sequence[Mapping[str, Any]], file: Path) -> RunOutputs:
    """Read the outputs and facts of a run, and check them against the rows of its data file."""
    outputs = read_run_folder(run.folder)
    if difference := next(_differing_columns(run, outputs.inputs, rows), None):
        line, column = difference
        raise OpsError(
            f"the run {run.name} did not run over the present content of {file}: line {line} differs"
            f" in `{column}`",
            "Run it again, or set --data to the file that it ran over.",
        )
    recorded = RunProperties.from_properties(run.properties)
    return replace(outputs, facts={**outputs.facts, **recorded.facts()})


def _differing_columns(
    run: StoredRun, inputs: RowsByLine, rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, str]]:
    """Yield line number and column of each text that is not the input that the run had."""
    columns = {
        name: match[1]
        for name, source in run.column_mapping.items()
        if (match := _FROM_DATA.fullmatch(str(source))) and not _DATES.match(match[1])
    }
    for line, recorded in inputs.items():
        row = rows[line] if line < len(rows) else {}
        for name, column in columns.items():
            before, now = recorded.get(name), row.get(column, "")
            if isinstance(before, str) and isinstance(now, str) and before != now:
                yield line, column
