"""The folder of a run: the one reader and writer of its files.

The files are those of promptflow 1.18.5:

- `flow_outputs/output.jsonl`: one row per answered line, with its `line_number` in the data file. Failed
  lines have no row.
- `outputs.jsonl`: the same rows, for `pf run show-details`.
- `inputs.jsonl`: the inputs of each line.
- `error.json`: the error of each failed line.
- `metrics.json`: the metrics that the aggregation logged.
- `snapshot/`: a copy of the flow as it ran.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import atomic_folder, load_json_object, read_jsonl, write_json, write_jsonl
from ..flows import copy_flow, flow_files
from ..hashing import parts_sha256
from ..pf import LINE_NUMBER
from .properties import SHORT_HASH

OUTPUT_FOLDER = "flow_outputs"
SNAPSHOT = "snapshot"
THRESHOLDS_FILE = "thresholds.yaml"
_OUTPUT_FILE = f"{OUTPUT_FOLDER}/output.jsonl"
_OUTPUT_FILES = (_OUTPUT_FILE, "outputs.jsonl", "output.jsonl")
_NOT_HASHED = ("flow.dag.yaml", THRESHOLDS_FILE, "samples.jsonl")

Row = Mapping[str, Any]
RowsByLine = Mapping[int, Row]  # line number, from 0 -> row


@dataclass(frozen=True)
class RunOutputs:
    """The results of one run.

    Attributes:
        rows: the outputs of each answered line; failed lines are missing.
        inputs: the inputs of each line.
        errors: line number -> the reason for which the line failed.
        metrics: the metrics that the aggregation logged.
        facts: the flow, the endpoints that it called and the parameters of its nodes, at the time of the
            run.
    """

    rows: RowsByLine
    inputs: RowsByLine = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    metrics: Row = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


# -- reading ---------------------------------------------------------------------------------------


def read_run_folder(folder: Path) -> RunOutputs:
    """Read the folder of a run. If every line failed, there are no rows.

    Raises:
        OpsError: a file of the folder cannot be read.
    """
    inputs = folder / "inputs.jsonl"
    return RunOutputs(
        rows=read_answers(folder),
        inputs=read_rows_by_line(inputs) if inputs.is_file() else {},
        errors=read_errors(folder),
        metrics=_read_object(folder / "metrics.json"),
        facts=_flow_facts(folder / SNAPSHOT),
    )


def find_outputs_file(folder: Path) -> Path | None:
    """Return the file with the outputs of a run, or None if the folder has none."""
    return next((folder / name for name in _OUTPUT_FILES if (folder / name).is_file()), None)


def read_answers(folder: Path) -> dict[int, Row]:
    """Return the outputs of each answered line of a run.

    Raises:
        OpsError: the file with the outputs cannot be read.
    """
    file = find_outputs_file(folder)
    return read_rows_by_line(file) if file else {}


def read_errors(folder: Path) -> dict[int, str]:
    """Return the error message of each failed line of a run, in the order of `error.json`."""
    return dict(_error_messages(_read_object(folder / "error.json")))


def read_rows_by_line(file: Path, line_count: int | None = None) -> dict[int, Row]:
    """Return the rows of a JSONL file by their line number.

    Args:
        file: the file.
        line_count: number of lines in the data file. If it is given, the rows may lack line numbers:
            they then are the rows of all lines, in order.

    Raises:
        OpsError: the file cannot be read, or a line number is missing, not valid or not unique.
    """
    rows = read_jsonl(file)
    if line_count is not None and not any(LINE_NUMBER in row for row in rows):
        if len(rows) != line_count:
            raise OpsError(
                f"{file} has {len(rows)} rows, but the data file has {line_count} lines",
                f"Add `{LINE_NUMBER}` (from 0) to each row: it says which lines are missing.",
            )
        return dict(enumerate(rows))
    rows_by_line: dict[int, Row] = {}
    for position, row in enumerate(rows, 1):
        line = row.pop(LINE_NUMBER, None)
        if type(line) is not int or line < 0:
            raise OpsError(
                f"{file}, row {position}: `{LINE_NUMBER}` is {line!r}",
                "Give each row the number of its line in the data file, from 0.",
            )
        if line in rows_by_line:
            fix = "Remove one of the two rows."
            raise OpsError(f"{file}, row {position}: line {line} appears twice", fix)
        rows_by_line[line] = row
    return rows_by_line


def find_thresholds(*folders: Path) -> Path | None:
    """Return the first file `THRESHOLDS_FILE` in some folders, or None."""
    files = (folder / THRESHOLDS_FILE for folder in folders)
    return next((file for file in files if file.is_file()), None)


def _read_object(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the run has not written the file."""
    try:
        return load_json_object(file)
    except (OSError, ValueError):
        return {}


def _error_messages(report: Row) -> Iterator[tuple[int, str]]:
    """Yield line number and message of each error in `error.json`."""
    try:
        for error in report["additionalInfo"][0]["info"]["errors"]:
            yield int(error[LINE_NUMBER]), str(error["error"]["message"])
    except (LookupError, TypeError, ValueError):
        return


def _flow_facts(snapshot: Path) -> dict[str, str]:
    """Return name, version and content of a flow, and the constant inputs of its nodes.

    The result is empty if the run has no snapshot, or if its flow is not a DAG.
    """
    import yaml

    from ..yaml_files import load_yaml

    try:
        flow = load_yaml(snapshot / "flow.dag.yaml")
        name = flow.get("display_name") or flow.get("name") or "flow"
        facts = {"flow": str(name)}
        if version := (flow.get("tags") or {}).get("version"):
            facts["flow version"] = str(version)
        facts["flow files"] = _content_hash(snapshot)
        for node in flow["nodes"]:
            for key, value in node.get("inputs", {}).items():
                if not str(value).startswith("${"):
                    facts[f"{node['name']}.{key}"] = str(value)
    except (OpsError, OSError, ValueError, LookupError, AttributeError, TypeError, yaml.YAMLError):
        return {}
    return facts


def _content_hash(snapshot: Path) -> str:
    """Return a short hash of a flow's code and templates. The other facts describe its YAML."""
    parts: list[bytes] = []
    for file in flow_files(snapshot):  # without the logs of Prompt flow
        if file.name not in _NOT_HASHED:
            parts += (file.relative_to(snapshot).as_posix().encode(), file.read_bytes())
    return parts_sha256(parts)[:SHORT_HASH]


# -- writing ---------------------------------------------------------------------------------------


def write_run_folder(
    folder: Path,
    flow: Path,
    *,
    inputs: RowsByLine,
    answers: RowsByLine,
    errors: Mapping[int, str],
    other_files: Path | None = None,
) -> None:
    """Write the folder of a run as Prompt flow does. On an error, nothing is written.

    Args:
        folder: the folder of the run.
        flow: the folder of the flow, which is copied.
        inputs: the inputs of each line.
        answers: the outputs of each answered line.
        errors: line number -> the reason for which the line failed.
        other_files: a folder whose files are copied as well, or None.

    Raises:
        OpsError: the folder cannot be written.
    """
    with atomic_folder(folder, last=OUTPUT_FOLDER) as new:
        if other_files:
            shutil.copytree(other_files, new, dirs_exist_ok=True)
        copy_flow(flow, new / SNAPSHOT)
        write_jsonl(new / "inputs.jsonl", _numbered(inputs))
        if errors:
            reports = [
                {LINE_NUMBER: line, "error": {"message": text}} for line, text in errors.items()
            ]
            write_json(new / "error.json", {"additionalInfo": [{"info": {"errors": reports}}]})
        for name in ("outputs.jsonl", _OUTPUT_FILE):
            write_jsonl(new / name, _numbered(answers))


def write_results(
    folder: Path,
    *,
    inputs: RowsByLine,
    answers: RowsByLine,
    failures: Sequence[Row],
    metrics: Row,
) -> None:
    """Write the results of a run into its folder.

    Args:
        folder: the folder of the run.
        inputs: the inputs of each line that has run.
        answers: the outputs of each answered line.
        failures: `line_number`, or the name of an aggregation node, and `error` of each failure.
        metrics: the metrics that the aggregation logged.

    Raises:
        OpsError: the folder cannot be written.
    """
    write_jsonl(folder / "inputs.jsonl", _numbered(inputs))
    if failures:
        report = {
            "message": f"First error message is: {failures[0]['error']['message']}",
            **{"messageFormat": "", "messageParameters": {}, "referenceCode": "Runtime"},
            **{"code": "UserError", "innerError": {"code": "BulkRunException", "innerError": None}},
            "additionalInfo": [{"type": "BulkRunErrors", "info": {"errors": list(failures)}}],
        }
        write_json(folder / "error.json", report)
    write_json(folder / "metrics.json", dict(metrics))
    (folder / _OUTPUT_FILE).parent.mkdir(exist_ok=True)
    for name in ("outputs.jsonl", _OUTPUT_FILE):
        write_jsonl(folder / name, _numbered(answers))


def complete_run_folder(folder: Path) -> None:
    """Make the folder of a killed run readable for Prompt flow, which then can resume the run.

    Creates the files that Prompt flow reads and a killed process has not written, and deletes records
    that are incomplete: their lines run again.
    """
    for name in ("inputs.jsonl", "outputs.jsonl", _OUTPUT_FILE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for record in folder.glob("*_artifacts/**/*.jsonl"):
        try:
            load_json_object(record)
        except ValueError:
            record.unlink()


def _numbered(rows: RowsByLine) -> Iterator[dict[str, Any]]:
    return ({LINE_NUMBER: line, **row} for line, row in rows.items())
