"""The records of a batch's lines, in the form of promptflow 1.18.5, for `pf run` and for resuming.

- `flow_artifacts/000000003_000000003.jsonl`: inputs, outputs, times and error of line 3
- `node_artifacts/<node>/000000003.jsonl`: likewise for a node; `000000000.jsonl` for an aggregation
- `meta.json`: number of lines in each file of `flow_artifacts`
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from phi3_tools.flow import CustomConnection, LineError, LineResult, NodeRun

from ..files import write_json
from ..pf import COMPLETED, FAILED, LINE_NUMBER

FLOW_RECORDS, NODE_RECORDS = "flow_artifacts", "node_artifacts"
_WIDTH = 9  # digits of a line number in a file name
_FORMAT = {"result": None, "message_format": "basic"}


@dataclass(frozen=True)
class RecordedLine:
    """A line that completed in an earlier run.

    Attributes:
        inputs: its inputs.
        outputs: its outputs.
        node_outputs: node name -> output.
    """

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    node_outputs: dict[str, Any]


@dataclass(frozen=True)
class LineUsage:
    """What an answered line took.

    Attributes:
        seconds: its duration, with all attempts of its calls.
        prompt_tokens: number of tokens of its prompts; 0 if the endpoint does not count them.
        completion_tokens: likewise of its answers.
    """

    seconds: float
    prompt_tokens: int
    completion_tokens: int


class LineRecords:
    """Writes the records of one run.

    Args:
        folder: the folder of the run.
        run: the run's name.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder, self._run = folder, run
        (folder / FLOW_RECORDS).mkdir(parents=True, exist_ok=True)
        write_json(folder / "meta.json", {"batch_size": 1})

    def add(self, line: int, result: LineResult, tokens: Mapping[str, int]) -> None:
        """Write the records of a line that has ended.

        Args:
            line: its number, from 0.
            result: its result.
            tokens: counts by their names in `system_metrics`.
        """
        for run in result.node_runs.values():
            self._write_node(run, line)
        begin, end = _times(result.started, result.seconds)
        status = COMPLETED if result.error is None else FAILED
        metrics = {"duration": round(result.seconds, 6), **tokens}
        inputs = {**result.inputs, LINE_NUMBER: line}
        outputs = result.outputs if result.error is None else None
        call = {
            **{"name": "flow", "node_name": "flow", "type": "Flow", "children": []},
            **{"start_time": result.started, "end_time": result.started + result.seconds},
            **{"inputs": inputs, "output": outputs, "system_metrics": metrics, "error": None},
        }
        run_info = {
            **{"run_id": f"{self._run}_{line}", "status": status},
            **{"error": _error(result.error), "inputs": inputs, "output": outputs},
            **{"metrics": None, "request": None, "parent_run_id": self._run},
            **{"root_run_id": self._run, "source_run_id": None, "flow_id": "default_flow_id"},
            **{"start_time": f"{begin}Z", "end_time": f"{end}Z", "index": line},
            **{"api_calls": [call], "name": "", "description": "", "tags": None},
            **{"system_metrics": metrics, "upload_metrics": False, "otel_trace_id": None},
            **_FORMAT,
        }
        record = {
            **{LINE_NUMBER: line, "run_info": run_info, "start_time": begin, "end_time": end},
            **{"name": "", "description": "", "status": status, "tags": None},
        }
        _write(self._folder / FLOW_RECORDS / f"{line:0{_WIDTH}}_{line:0{_WIDTH}}.jsonl", record)

    def add_aggregation(self, run: NodeRun) -> None:
        """Write the record of an aggregation node."""
        self._write_node(run, None)

    def copy_line(self, source: Path, line: int) -> None:
        """Copy the records of a line from the folder of another run."""
        number = f"{line:0{_WIDTH}}"
        names = [f"{FLOW_RECORDS}/{number}_{number}.jsonl"]
        nodes = source.glob(f"{NODE_RECORDS}/*/{number}.jsonl")
        names += [file.relative_to(source).as_posix() for file in nodes]
        for name in names:
            (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, self._folder / name)

    def _write_node(self, run: NodeRun, line: int | None) -> None:
        begin, end = _times(run.started, run.seconds)
        parent = self._run if line is None else f"{self._run}_{line}"
        suffix = "reduce" if line is None else str(line)
        run_info = {
            **{"node": run.node, "flow_run_id": self._run},
            **{"run_id": f"{self._run}_{run.node}_{suffix}", "status": run.status},
            **{"inputs": run.inputs, "output": run.output, "metrics": None},
            **{"error": _error(run.error), "parent_run_id": parent},
            **{"start_time": f"{begin}Z", "end_time": f"{end}Z", "index": line, "api_calls": []},
            **{"cached_run_id": None, "cached_flow_run_id": None},
            **{"logs": {"stdout": "", "stderr": ""}},
            **{"system_metrics": {"duration": round(run.seconds, 6)}, **_FORMAT},
        }
        record = {
            **{"NodeName": run.node, LINE_NUMBER: line, "run_info": run_info},
            **{"start_time": begin, "end_time": end, "status": run.status},
        }
        folder = self._folder / NODE_RECORDS / run.node
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{line or 0:0{_WIDTH}}.jsonl", record)


def read_completed_lines(folder: Path) -> dict[int, RecordedLine]:
    """Return the lines of a run that completed, by their numbers."""
    lines = {}
    for record in _read_records(folder / FLOW_RECORDS):
        if record.get("status") != COMPLETED:
            continue
        info = record["run_info"]
        inputs = {name: value for name, value in info["inputs"].items() if name != LINE_NUMBER}
        lines[int(record[LINE_NUMBER])] = RecordedLine(inputs, dict(info["output"]), {})
    for node in (folder / NODE_RECORDS).glob("*"):
        for record in _read_records(node):
            line = lines.get(record[LINE_NUMBER])
            if line is not None and record.get("status") == COMPLETED:
                line.node_outputs[record["NodeName"]] = record["run_info"].get("output")
    return lines


def read_line_usage(folder: Path) -> dict[int, LineUsage]:
    """Return what the completed lines of a run took, by their numbers."""
    usage = {}
    for record in _read_records(folder / FLOW_RECORDS):
        if record.get("status") == COMPLETED:
            metrics = record["run_info"].get("system_metrics") or {}
            tokens = (
                int(metrics.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")
            )
            usage[int(record[LINE_NUMBER])] = LineUsage(
                float(metrics.get("duration") or 0), *tokens
            )
    return usage


def _read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete records of a folder. A killed process may leave a part of one."""
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_bytes().split(b"\n"):  # a text may contain other line ends
            try:
                record = json.loads(line.decode("utf-8", "surrogatepass"))
            except (ValueError, RecursionError):
                continue
            if _is_record(record):
                yield record


def _is_record(record: Any) -> bool:
    """Return whether a value has the fields that are read, with their types."""
    if not isinstance(record, dict) or not isinstance(record.get("run_info"), dict):
        return False
    if record.get("status") != COMPLETED:
        return True
    inputs, output = (record["run_info"].get(name) for name in ("inputs", "output"))
    is_node = "NodeName" in record
    line = record.get(LINE_NUMBER)
    has_line = type(line) is int or (is_node and line is None)
    return has_line and (is_node or (isinstance(inputs, dict) and isinstance(output, dict)))


def plain_value(value: Any) -> Any:
    """Return what JSON cannot contain as Prompt flow writes it: a connection as its name, …"""
    if isinstance(value, CustomConnection):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)


def _error(error: LineError | None) -> dict[str, Any] | None:
    return None if error is None else error.as_dict()


def _times(started: float, seconds: float) -> tuple[str, str]:
    """Return begin and end as ISO 8601 in UTC, without the zone."""
    return tuple(  # type: ignore[return-value]
        datetime.fromtimestamp(at, timezone.utc).replace(tzinfo=None).isoformat()
        for at in (started, started + max(seconds, 0.0))
    )


def _write(path: Path, record: Mapping[str, Any]) -> None:
    text = json.dumps(record, ensure_ascii=False, default=plain_value)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
