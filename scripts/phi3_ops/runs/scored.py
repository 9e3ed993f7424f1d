"""Runs that were scored: from prompt flow's local store, or from files that came from elsewhere.

What a run's folder holds is prompt flow 1.18.5's: `flow_outputs/output.jsonl` (a row for each line that
was answered, with its `line_number` in the data file; failed lines are not there), `inputs.jsonl`,
`error.json`, `metrics.json` and `snapshot/`, the flow as it ran.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import read_jsonl
from ..flows import flow_files
from ..hashing import parts_sha256
from ..pf import pf_client
from .properties import SHORT_HASH, readable_properties

LINE_NUMBER = "line_number"
OUTPUTS = ("flow_outputs/output.jsonl", "outputs.jsonl", "output.jsonl")
THRESHOLDS_FILE = "thresholds.yaml"

Row = Mapping[str, Any]
RowsByLine = Mapping[int, Row]  # line number, from 0 -> row

_FROM_DATA = re.compile(r"\$\{data\.([^}]+)\}")
# Columns that pandas, with which prompt flow reads its data, takes for dates and rewrites.
_DATES = re.compile(r"timestamp|modified$|date$|.*_(at|time)$", re.IGNORECASE)


@dataclass(frozen=True)
class RunOutputs:
    """What one run left behind.

    Attributes:
        rows: its outputs; failed lines are not there.
        inputs: what its flow was given.
        errors: line number -> why it failed.
        metrics: what its aggregation logged.
        facts: its flow, the endpoints that it asked and the parameters of the flow's nodes, as they were
            when it ran.
    """

    rows: RowsByLine
    inputs: RowsByLine = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    metrics: Row = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredRun:
    """A run with its scores, ready to be compared.

    Attributes:
        name: as the user gave it.
        data: the data file it ran over.
        scored: the scores; outputs of an evaluation, or a file's rows.
        asked: the answers that were scored, where they are a run of their own.
        thresholds: what lies with the flow of the scores.
        note: what was chosen without being asked for by name.
    """

    name: str
    data: Path
    scored: RunOutputs
    asked: RunOutputs | None = None
    thresholds: Path | None = None
    note: str = ""

    @property
    def answers(self) -> RowsByLine:
        """What was answered. Without a run of the answers: what the scores' flow was given."""
        if self.asked:
            return self.asked.rows
        inputs = self.scored.inputs
        return {line: {**inputs.get(line, {}), **row} for line, row in self.scored.rows.items()}

    @property
    def facts(self) -> dict[str, str]:
        """How the run came to be: flow, parameters, and what scored it."""
        if not self.asked:
            return dict(self.scored.facts)
        scorer = {f"scored by: {name}": fact for name, fact in self.scored.facts.items()}
        return {**self.asked.facts, **scorer}

    @property
    def errors(self) -> dict[int, str]:
        """Why lines failed, at the first of both runs where they did."""
        return {**self.scored.errors, **(self.asked.errors if self.asked else {})}


def load_scored_run(reference: str, data: Path | None = None) -> ScoredRun:
    """A run by its name in prompt flow's store, or from a JSONL file or a run's folder.

    Args:
        reference: name of a base run (its newest evaluation is taken) or of an evaluation; or a path.
        data: the data file, in place of the recorded one; files and folders record none.

    Raises:
        OpsError: there is no such run, it has no scores, or it did not run over this data.
    """
    path = Path(reference)
    if path.is_file() or path.suffix == ".jsonl":
        file = _given(reference, data)
        run = ScoredRun(reference, file, RunOutputs(_lines(path, len(read_jsonl(file)))))
    elif _outputs_file(path):
        snapshot = path / "snapshot" / THRESHOLDS_FILE
        thresholds = snapshot if snapshot.is_file() else None
        run = ScoredRun(
            reference, _given(reference, data), read_run_folder(path), thresholds=thresholds
        )
    else:
        run = _from_store(reference, data)
    rows = read_jsonl(run.data)
    for outputs in (run.scored, run.asked):
        if outputs:
            _check_lines(reference, outputs.rows, run.data, len(rows))
    return run


def _given(reference: str, data: Path | None) -> Path:
    if data is None:
        raise OpsError(f"{reference} does not say which data it ran over", "Give --data FILE.")
    return data


def _check_lines(reference: str, rows: RowsByLine, data: Path, count: int) -> None:
    """Raise unless the rows can be the data file's lines."""
    beyond = max(rows, default=-1)
    if beyond >= count:
        raise OpsError(
            f"{reference} has line {beyond}, but {data} has {count} lines (from 0)",
            "Give the file that the run ran over as --data.",
        )


# -- files -----------------------------------------------------------------------------------------


def read_run_folder(folder: Path) -> RunOutputs:
    """What a run's folder holds; a run of which every line failed has no outputs.

    Raises:
        OpsError: a file of it cannot be read.
    """
    file = _outputs_file(folder)
    inputs = folder / "inputs.jsonl"
    return RunOutputs(
        rows=_lines(file) if file else {},
        inputs=_lines(inputs) if inputs.is_file() else {},
        errors=dict(_errors(_json(folder / "error.json"))),
        metrics=_json(folder / "metrics.json"),
        facts=_flow_facts(folder / "snapshot"),
    )


def _outputs_file(folder: Path) -> Path | None:
    return next((folder / name for name in OUTPUTS if (folder / name).is_file()), None)


def _lines(file: Path, count: int | None = None) -> dict[int, Row]:
    """A file's rows by their line number; by their place where no row has one and none is missing.

    Args:
        file: a JSONL file.
        count: lines of the data file, for files that may do without line numbers.
    """
    rows = read_jsonl(file)
    if count is not None and not any(LINE_NUMBER in row for row in rows):
        if len(rows) != count:
            raise OpsError(
                f"{file} has {len(rows)} rows, and the data file {count} lines",
                f"Give each row its `{LINE_NUMBER}`, from 0: it says which lines are missing.",
            )
        return dict(enumerate(rows))
    found: dict[int, Row] = {}
    for place, row in enumerate(rows, 1):
        line = row.pop(LINE_NUMBER, None)
        if type(line) is not int or line < 0:
            raise OpsError(
                f"{file}, row {place}: `{LINE_NUMBER}` is {line!r}",
                "Give every row its line of the data file, from 0.",
            )
        if line in found:
            raise OpsError(f"{file}, row {place}: line {line} is there twice", "Keep one of them.")
        found[line] = row
    return found


def _json(file: Path) -> dict[str, Any]:
    """An object that a run may have left; empty where it did not."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _errors(report: Row) -> Iterator[tuple[int, str]]:
    """Line number and message of each error in prompt flow's `error.json`."""
    try:
        found = report["additionalInfo"][0]["info"]["errors"]
        for error in found:
            yield error["line_number"], str(error["error"]["message"])
    except (LookupError, TypeError):
        return


def _flow_facts(snapshot: Path) -> dict[str, str]:
    """Name, version and content of a flow, and what its nodes were given that is no reference."""
    import yaml

    try:
        flow = yaml.safe_load((snapshot / "flow.dag.yaml").read_text(encoding="utf-8"))
        name = flow.get("display_name") or flow.get("name") or "flow"
        facts = {"flow": str(name)}
        if version := (flow.get("tags") or {}).get("version"):
            facts["flow version"] = str(version)
        facts["flow files"] = _content(snapshot)
        for node in flow["nodes"]:
            for key, value in node.get("inputs", {}).items():
                if not str(value).startswith("${"):
                    facts[f"{node['name']}.{key}"] = str(value)
    except (OpsError, OSError, ValueError, LookupError, AttributeError, yaml.YAMLError):
        return {}  # no snapshot, or no DAG: nothing is recorded, and nothing said to differ
    return facts


def _content(snapshot: Path) -> str:
    """A short hash of the code and templates of a flow; its YAML shows in the other facts."""
    parts: list[bytes] = []
    for file in flow_files(snapshot):  # prompt flow's own logs are no part of it
        if file.name not in ("flow.dag.yaml", THRESHOLDS_FILE, "samples.jsonl"):
            parts += (file.relative_to(snapshot).as_posix().encode(), file.read_bytes())
    return parts_sha256(parts)[:SHORT_HASH]


# -- prompt flow's store ---------------------------------------------------------------------------


def _from_store(name: str, data: Path | None) -> ScoredRun:
    client = pf_client()
    given = _get(client, name)
    base, scores, note = _pair(client, given)
    file = _given(f"the run {name}", data or _recorded_data(client, scores))
    if not file.is_file():
        raise OpsError(f"the data file of the run {name} is gone: {file}", "Give --data FILE.")
    asked = _read(base) if base else None
    scored = _read(scores)
    rows = read_jsonl(file)
    for run, outputs in ((base, asked), (scores, scored)):
        if run and outputs:
            _check_data(run, outputs, rows, file)
    return ScoredRun(name, file, scored, asked, thresholds=_thresholds(scores), note=note)


def _get(client: Any, name: str) -> Any:
    from promptflow._sdk._errors import RunNotFoundError

    try:
        run = client.runs.get(name)
    except RunNotFoundError as error:
        raise OpsError(
            f"there is no run {name!r} in prompt flow's store, and no such file",
            "`pf run list` shows the runs.",
        ) from error
    if run.status != "Completed":
        raise OpsError(f"the run {name} is {run.status}", f"See `pf run show --name {name}`.")
    return run


def _pair(client: Any, run: Any) -> tuple[Any | None, Any, str]:
    """The run of the answers, the run of their scores, and which one was chosen."""
    base = _base(run)
    if base:
        return _get(client, base), run, ""
    bound = [other for other in client.runs.list(max_results=None) if _base(other) == run.name]
    done = [other for other in bound if other.status == "Completed"]
    if not done:
        return None, run, ""
    newest = max(done, key=lambda other: other._created_on)
    note = f"{run.name} is scored by {newest.name}"
    if len(done) > 1:
        note += f", the newest of {len(done)} evaluations"
    return run, newest, note


def _base(run: Any) -> str:
    """Name of the run whose outputs a run is bound to, or nothing."""
    return str(getattr(run.run, "name", run.run) or "")


def _recorded_data(client: Any, run: Any) -> Path | None:
    while not run.data and _base(run):
        run = _get(client, _base(run))
    return Path(run.data) if run.data else None


def _read(run: Any) -> RunOutputs:
    outputs = read_run_folder(Path(run._output_path))
    tokens = run.properties.get("system_metrics", {}).get("total_tokens")
    facts = {**outputs.facts, **readable_properties(run.properties)}
    if tokens:
        facts["tokens"] = f"{tokens:,}"
    return RunOutputs(**{**vars(outputs), "facts": facts})


def _thresholds(run: Any) -> Path | None:
    """From the flow's folder, so that a changed margin counts at once; else as it was when it ran."""
    places = (Path(run.flow or "."), Path(run._output_path) / "snapshot")
    return next((p / THRESHOLDS_FILE for p in places if (p / THRESHOLDS_FILE).is_file()), None)


def _check_data(run: Any, outputs: RunOutputs, rows: list[dict[str, Any]], file: Path) -> None:
    """Raise where the data file no longer holds what the run was asked."""
    columns = {
        name: found[1]
        for name, source in (run.column_mapping or {}).items()
        if (found := _FROM_DATA.fullmatch(str(source))) and not _DATES.match(found[1])
    }
    for line, given in outputs.inputs.items():
        row = rows[line] if line < len(rows) else {}
        for name, column in columns.items():
            then, now = given.get(name), row.get(column, "")
            if isinstance(then, str) and isinstance(now, str) and then != now:
                raise OpsError(
                    f"the run {run.name} did not run over {file} as it is now: line {line} differs in"
                    f" `{column}`",
                    "Run it again, or give the file that it ran over as --data.",
                )
