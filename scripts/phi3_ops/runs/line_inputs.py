"""The inputs of each line of a batch, from the data file, the base run and the column mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import read_jsonl
from ..pf import StoredRun, find_stored_run
from .store import RowsByLine, read_answers, read_rows_by_line

_REFERENCE = re.compile(r"\$\{(.+)\.([^.}]+)\}")
DATA, RUN_OUTPUTS, RUN_INPUTS = "data", "run.outputs", "run.inputs"


def line_inputs(
    data: Path, base: str | None, mapping: Mapping[str, str]
) -> dict[int, dict[str, Any]]:
    """Return the inputs of each line, by its number in the data file.

    As in Prompt flow, a line runs only if it has a row in every source; a line that the base run did not
    answer does not run. A row has every column of its source; a missing value is None.

    Args:
        data: the data file.
        base: name of the base run, or None.
        mapping: input -> `${data.x}`, `${run.outputs.x}`, `${run.inputs.x}` or a constant.

    Raises:
        OpsError: the data file is empty, or a source or a column does not exist.
    """
    sources = _sources(data, base)
    lines = sorted(set.intersection(*(set(rows) for rows in sources.values())))
    if not lines:
        fix = "Give a data file with rows, and a base run with answers."
        raise OpsError(f"no line has a row in {' and '.join(sources)}", fix)
    references = {name: _reference(str(value), sources) for name, value in mapping.items()}
    return {
        line: {
            name: mapping[name] if reference is None else sources[reference[0]][line][reference[1]]
            for name, reference in references.items()
        }
        for line in lines
    }


def _sources(data: Path, base: str | None) -> dict[str, RowsByLine]:
    sources: dict[str, RowsByLine] = {DATA: dict(enumerate(_filled(read_jsonl(data))))}
    if base is None:
        return sources
    run = find_stored_run(base)
    if run is None:
        raise OpsError(f"the base run {base!r} does not exist", "`phi3 runs` lists the runs.")
    return {**sources, RUN_OUTPUTS: read_answers(run.folder), RUN_INPUTS: _inputs_of(run)}


def _inputs_of(run: StoredRun) -> RowsByLine:
    file = run.folder / "inputs.jsonl"
    return read_rows_by_line(file) if file.is_file() else {}


def _filled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    columns = {name: None for row in rows for name in row}
    return [{**columns, **row} for row in rows]


def _reference(value: str, sources: Mapping[str, RowsByLine]) -> tuple[str, str] | None:
    """Return source and column of `${source.column}`, or None for a constant."""
    match = _REFERENCE.fullmatch(value)
    if match is None:
        return None
    source, column = match[1], match[2]
    rows = sources.get(source)
    if rows is None:
        fix = f"Use one of {', '.join(sources)}."
        raise OpsError(f"the source {source!r} in {value} does not exist", fix)
    columns = dict.fromkeys(name for row in rows.values() for name in row)
    if column not in columns:
        fix = f"The columns are {', '.join(columns)}."
        raise OpsError(f"the column {column!r} in {value} does not exist", fix)
    return source, column
