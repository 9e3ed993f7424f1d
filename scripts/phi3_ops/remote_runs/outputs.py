"""What a batch on Azure brings back, as a run in prompt flow's store.

A job's output is described in prompt flow's notebook "Run flows in Azure ML pipeline"; a run's folder
is prompt flow 1.18.5's, see `runs`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OpsError, first_line
from ..files import atomic_folder, read_jsonl, write_json, write_jsonl
from ..flows import copy_flow
from ..hashing import file_sha256
from ..pf import LINE_NUMBER, pf_client
from ..runs import COMPLETED, DATA_HASH, run_properties

if TYPE_CHECKING:
    from .submission import BatchRequest

OUTPUT_FOLDER = "flow_outputs"
OUTPUT_FILE = "parallel_run_step.jsonl"  # joined at the end, from one temp_*_*_ file a process
LOST = "not among the job's outputs: its mini-batch failed, or was never run"

Row = dict[str, Any]


@dataclass(frozen=True)
class Download:
    """What was downloaded of a batch.

    Attributes:
        answers: line number -> the flow's outputs.
        errors: line number -> why it failed, where that is known.
        files: a folder of what else belongs to the run, or None.
    """

    answers: Mapping[int, Row]
    errors: Mapping[int, str] = field(default_factory=dict)
    files: Path | None = None


def join_outputs(folder: Path, count: int) -> dict[int, dict[str, Any]]:
    """The lines' outputs among a job's files, sorted by line number.

    A job that failed has not joined its mini-batches' files. A mini-batch that was run again after a
    timeout may have left a line twice: the first one counts.

    Args:
        folder: what was downloaded.
        count: lines of the data file.

    Raises:
        OpsError: a row has no line number, or that of no line.
    """
    files = sorted(folder.rglob(OUTPUT_FILE)) or sorted(folder.rglob(f"temp_*_{OUTPUT_FILE}"))
    found: dict[int, dict[str, Any]] = {}
    for row in (row for file in files for row in read_jsonl(file)):
        inner = row.get("output")
        if isinstance(inner, dict) and LINE_NUMBER in inner:
            row = inner  # as promptflow-parallel returns it; the documented file holds it flat
        found.setdefault(line_number_of(row, count, OUTPUT_FILE), row)
    return dict(sorted(found.items()))


def line_number_of(row: Row, count: int, where: str) -> int:
    """Take the line number out of a row; raises OpsError for one that the data file does not have."""
    line = row.pop(LINE_NUMBER, None)
    if type(line) is not int or not 0 <= line < count:
        fix = "The outputs are not those of this data file."
        raise OpsError(f"{where}: `{LINE_NUMBER}` is {line!r}", fix)
    return line


def write_run_folder(
    folder: Path, request: BatchRequest, rows: Sequence[Row], brought: Download
) -> None:
    """A run's folder as prompt flow writes it; a line that is not among the answers has failed.

    Args:
        folder: of the run.
        request: what was run.
        rows: the data file's.
        brought: what was downloaded.

    Raises:
        OpsError: the folder cannot be written.
    """
    answers, reasons = brought.answers, brought.errors
    failed = [line for line in range(len(rows)) if line not in answers]
    errors = [{LINE_NUMBER: line, "error": {"message": reasons.get(line, LOST)}} for line in failed]
    inputs = {line: _given(request.columns, row) for line, row in enumerate(rows)}
    with atomic_folder(folder, last=OUTPUT_FOLDER) as new:
        if brought.files:
            shutil.copytree(brought.files, new, dirs_exist_ok=True)
        copy_flow(request.flow.folder, new / "snapshot")
        write_jsonl(new / "inputs.jsonl", _numbered(inputs))
        if errors:
            write_json(new / "error.json", {"additionalInfo": [{"info": {"errors": errors}}]})
        for name in (
            "outputs.jsonl",
            f"{OUTPUT_FOLDER}/output.jsonl",
        ):  # `pf run show-details` reads the first
            write_jsonl(new / name, _numbered(answers))


def register_run(name: str, folder: Path, request: BatchRequest, more: Mapping[str, Any]) -> None:
    """Note a run's folder in prompt flow's store, where it is not there yet.

    Args:
        name: the run's.
        folder: the run's.
        request: what was run.
        more: further properties, over those of this machine.

    Raises:
        OpsError: the store cannot be written.
    """
    client = pf_client()
    from promptflow._sdk._errors import RunNotFoundError
    from promptflow.entities import Run

    try:
        client.runs.get(name)
        return
    except RunNotFoundError:
        now = datetime.now(timezone.utc)
    properties: dict[str, Any] = {
        **run_properties(request.flow.folder),
        DATA_HASH: file_sha256(request.data),
        "column_mapping": dict(request.columns),
        "flow_path": request.flow.folder.resolve().as_posix(),
        **more,
    }
    run = Run(
        name=name,
        source=folder.resolve(),
        run_source="existing_run",
        data=str(request.data.resolve()),
        display_name=request.title,
        status=COMPLETED,
        created_on=now,
        start_time=now,
        end_time=now,
        properties=properties,
    )
    try:
        client.runs.create_or_update(run)
    except Exception as error:  # promptflow has no base class for what its store can raise
        raise OpsError(f"cannot note the run {name}: {first_line(error)}") from error


def _numbered(rows: Mapping[int, Row]) -> list[Row]:
    return [{LINE_NUMBER: line, **row} for line, row in rows.items()]


def _given(columns: Mapping[str, str], row: Row) -> Row:
    """What a line's flow was given."""
    start = "${data."
    return {
        name: row.get(value[len(start) : -1]) if value.startswith(start) else value
        for name, value in columns.items()
    }
