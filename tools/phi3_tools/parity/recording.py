"""The file of a recording: `recording.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .exchanges import Exchange

RECORDING_FILE = "recording.json"
FORMAT = 1


@dataclass(frozen=True)
class RecordedLine:
    """One line of a recording. A line either has outputs or error codes.

    Attributes:
        inputs: the inputs that were given.
        outputs: output name -> value, or None.
        error: the error codes, from `UserError` or `SystemError` to the class, or None.
        streamed: name and text of the output that streamed; None if the flow does not stream.
        requests: hashes of the requests of the complete answer, in order.
        stream_requests: likewise of the streamed answer.
        stream_error: the error codes of the streamed answer, or None.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any] | None
    error: list[str] | None = None
    streamed: list[str] | None = None
    requests: list[str] = field(default_factory=list)
    stream_requests: list[str] = field(default_factory=list)
    stream_error: list[str] | None = None


@dataclass(frozen=True)
class Recording:
    """What a flow answered.

    Attributes:
        flow: `name`, `version` and `sha256` of the flow.
        engine: engine that ran the flow, with its version.
        connections: connection -> its fields without secrets; `endpoint` is a path.
        lines: the lines.
        metrics: the metrics of the aggregation.
        metrics_error: the error codes of an aggregation that failed, or None.
        exchanges: hash of a request -> the endpoint's answers.
    """

    flow: Mapping[str, str]
    engine: str
    connections: Mapping[str, Mapping[str, str]]
    lines: list[RecordedLine]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    exchanges: Mapping[str, list[Exchange]] = field(default_factory=dict)
    metrics_error: list[str] | None = None


def write_recording(folder: Path, recording: Recording) -> Path:
    """Write a recording into a folder, and return its file. An existing recording is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECORDING_FILE
    text = json.dumps({"format": FORMAT, **asdict(recording)}, ensure_ascii=False, indent=1)
    path.write_bytes(f"{text}\n".encode("utf-8", "surrogatepass"))
    return path


def _check_types(recording: Recording) -> None:
    """Raise TypeError if a field of a recording has another type than its annotation says."""
    mappings = [recording.flow, recording.connections, recording.metrics]
    mappings += [line.inputs for line in recording.lines]
    mappings += [line.outputs for line in recording.lines if line.outputs is not None]
    lists: list[Any] = [recording.metrics_error]
    for line in recording.lines:
        lists += [line.error, line.streamed, line.requests, line.stream_requests, line.stream_error]
    exchanges = [each for answers in recording.exchanges.values() for each in answers]
    values = [*(isinstance(mapping, dict) for mapping in mappings)]
    values += [isinstance(fields, dict) for fields in recording.connections.values()]
    values += [each is None or _is_texts(each) for each in lists]
    values += [
        isinstance(each.status, int) and _is_texts([each.content_type, each.body])
        for each in exchanges
    ]
    if not all([*values, isinstance(recording.engine, str)]):
        raise TypeError("a field has another type")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def read_recording(folder: Path) -> Recording:
    """Read a recording from its folder or its file.

    Raises:
        ConfigError: the file does not exist, or it is not a recording of this format.
    """
    path = folder / RECORDING_FILE if folder.is_dir() else folder
    try:
        content = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        lines = [
            RecordedLine(**{"stream_error": line["error"], **line}) for line in content.pop("lines")
        ]
        exchanges = {
            digest: [Exchange(**answer) for answer in answers]
            for digest, answers in content.pop("exchanges").items()
        }
        recording = Recording(lines=lines, exchanges=exchanges, **content)
        _check_types(recording)
        return recording
    except OSError as error:
        hint = "Make one with `phi3 flow record NAME --data FILE`."
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        hint = "Make it again with `phi3 flow record`."
        raise ConfigError(f"{path} is not a recording of format {FORMAT}", hint=hint) from error
