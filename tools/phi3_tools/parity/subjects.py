"""What is held to a recording: this package's engine, an exported module, or an exported service."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..connections import Connection, require_connection
from ..errors import ConfigError
from ..flow import Engine, Flow, Line, LineError, LineResult

EVENT = "data: "


@dataclass
class Outcome:
    """The outcome of one line.

    Attributes:
        outputs: output name -> value as JSON has it, or None if the line failed.
        error: the error codes, or None. A service tells only the first one.
        streamed: name and text of the output that streamed, or None.
        line: what `Subject.aggregate` needs of the line.
    """

    outputs: dict[str, Any] | None
    error: list[str] | None = None
    streamed: list[str] | None = None
    line: Any = None


@dataclass
class Aggregated:
    """The outcome of an aggregation.

    Attributes:
        metrics: the metrics, also those before a failure; None if the subject loses them in a failure.
        error: the error codes, or None.
    """

    metrics: dict[str, Any] | None
    error: list[str] | None = None


class Subject(Protocol):
    """A form of a flow.

    Attributes:
        name: what it is, for people.
        all_codes: whether it tells all error codes, or only the first one.
    """

    name: str
    all_codes: bool

    async def run(self, inputs: Mapping[str, Any]) -> Outcome:
        """Run a line, and return its complete answer."""

    async def stream(self, inputs: Mapping[str, Any]) -> Outcome:
        """Run a line, and return its answer from pieces."""

    async def aggregate(self, outcomes: Sequence[Outcome]) -> Aggregated | None:
        """Run the aggregation over the lines that completed; None without one."""

    def close(self) -> None:
        """End the threads."""


def plain_outputs(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return outputs as JSON has them; a connection is its name, and other objects are text."""
    return dict(json.loads(json.dumps(outputs, default=_plain)))


def _plain(value: Any) -> Any:
    if isinstance(value, Connection):
        return value.name
    return list(value) if isinstance(value, (set, frozenset)) else str(value)


def _failed(error: Exception) -> Outcome:
    """Return the outcome of a failed line; an exception without codes is no recorded failure."""
    if isinstance(error, LineError):
        return Outcome(None, list(error.codes))
    return Outcome(None, [f"{type(error).__name__}: {error}"])


# -- the engine ------------------------------------------------------------------------------------


def engine_subject(flow: Flow) -> Subject:
    """Return this package's engine with a flow; its connections are looked up."""
    return _EngineSubject(Engine(flow, require_connection))


class _EngineSubject:
    name, all_codes = "engine", True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, inputs: Mapping[str, Any]) -> Outcome:
        return self._outcome(await self._engine.arun(inputs))

    async def stream(self, inputs: Mapping[str, Any]) -> Outcome:
        async with await self._engine.astream(inputs) as stream:
            try:
                text = "".join([piece async for piece in stream])
            except LineError as error:
                return _failed(error)
            outcome = self._outcome(stream.result)
            if outcome.error is None and stream.name:
                outcome.streamed = [stream.name, text]
            return outcome

    async def aggregate(self, outcomes: Sequence[Outcome]) -> Aggregated | None:
        if not self._engine.has_aggregation:
            return None
        lines = [outcome.line for outcome in outcomes if outcome.error is None]
        result = await asyncio.to_thread(self._engine.aggregate, lines)
        error = None if result.error is None else list(result.error.codes)
        return Aggregated(dict(result.metrics), error)

    def close(self) -> None:
        self._engine.close()

    def _outcome(self, result: LineResult) -> Outcome:
        if result.error is not None:
            return _failed(result.error)
        return Outcome(plain_outputs(result.outputs), line=result)


# -- exported folders ------------------------------------------------------------------------------


def _exported_module(folder: Path, name: str) -> Any:
    """Import a module of an exported folder."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever the code of the folder raises
        hint = f"Install {folder / 'requirements.txt'}."
        what = f"{folder} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(what, hint=hint) from error
    file = Path(str(module.__file__)).resolve()
    if not file.is_relative_to(folder):
        hint = "Use a new process for each folder."
        raise ConfigError(f"the module {name} is {file}, and not of {folder}", hint=hint)
    return module


def exported_subject(folder: Path) -> Subject:
    """Return the exported module of a folder: `workflow.py` or `flow.py`.

    One process can import one folder, because the modules of all exports have the same names.

    Raises:
        ConfigError: the folder has neither file, or it cannot be imported.
    """
    folder = folder.resolve()
    name = next((n for n in ("workflow", "flow") if (folder / f"{n}.py").is_file()), None)
    if name is None:
        hint = "Give a folder that `phi3 flow export` wrote."
        raise ConfigError(f"{folder} has neither workflow.py nor flow.py", hint=hint)
    return _ExportedSubject(folder, name)


class _ExportedSubject:
    all_codes = True

    def __init__(self, folder: Path, name: str) -> None:
        self.name = f"{name}.py"
        self._module = _exported_module(folder, name)
        has_metrics = (folder / "evaluate.py").is_file()
        self._evaluate = _exported_module(folder, "evaluate") if has_metrics else None

    async def run(self, inputs: Mapping[str, Any]) -> Outcome:
        try:
            line = await self._module.run_line(inputs)
            return Outcome(plain_outputs(self._module.outputs(line)), line=line)
        except Exception as error:  # whatever the exported code raises
            return _failed(error)

    async def stream(self, inputs: Mapping[str, Any]) -> Outcome:
        if not hasattr(self._module, "stream_line"):
            return await self.run(inputs)
        line = Line(self._module.INPUTS)
        try:
            events = [event async for event in self._module.stream_line(inputs, line=line)]
        except Exception as error:  # whatever the exported code raises
            return _failed(error)
        if line.streamed is None:
            return Outcome(plain_outputs(events[0]))
        return _joined(events, line.streamed)

    async def aggregate(self, outcomes: Sequence[Outcome]) -> Aggregated | None:
        if self._evaluate is None:
            return None
        lines = [outcome.line for outcome in outcomes if outcome.error is None]
        try:
            return Aggregated(dict(await self._evaluate.aggregate_lines(lines)))
        except Exception as error:  # whatever the exported code raises
            return Aggregated(None, _failed(error).error)

    def close(self) -> None:
        pass


def _joined(events: Sequence[Mapping[str, Any]], streamed: str) -> Outcome:
    """Return the outcome of a stream: the complete outputs come first, then pieces of one output."""
    complete = {n: v for event in events for n, v in event.items() if n != streamed}
    text = "".join(str(event[streamed]) for event in events if streamed in event)
    return Outcome({**plain_outputs(complete), streamed: text}, streamed=[streamed, text])


def served_subject(folder: Path) -> Subject:
    """Return the service of an exported folder, `app.py`, which is called without a socket.

    Raises:
        ConfigError: the folder has no app, or it cannot be imported.
    """
    folder = folder.resolve()
    if not (folder / "app.py").is_file():
        hint = "Give a folder that `phi3 flow export` wrote."
        raise ConfigError(f"{folder} has no app.py", hint=hint)
    return _ServedSubject(_exported_module(folder, "app").app)


class _ServedSubject:
    name, all_codes = "app.py", False

    def __init__(self, app: Any) -> None:
        self._app = app

    async def run(self, inputs: Mapping[str, Any]) -> Outcome:
        try:
            status, _, body = await post_score(self._app, inputs, "application/json")
            return self._complete(status, body)
        except Exception as error:  # whatever the app raises, or answers instead of JSON
            return _failed(error)

    async def stream(self, inputs: Mapping[str, Any]) -> Outcome:
        accept = "text/event-stream, application/json"
        try:
            status, content_type, body = await post_score(self._app, inputs, accept)
        except LineError as error:  # after the first piece: the answer breaks off
            return Outcome(None, list(error.codes[:1]))
        except Exception as error:  # whatever the app raises
            return _failed(error)
        if not content_type.startswith("text/event-stream"):
            return self._complete(status, body)
        texts = [event for event in body.decode("utf-8").split("\n\n") if event]
        events = [json.loads(text[len(EVENT) :]) for text in texts]
        return _joined(events, next(iter(events[-1]))) if events else Outcome({})

    async def aggregate(self, outcomes: Sequence[Outcome]) -> Aggregated | None:
        return None

    def close(self) -> None:
        pass

    def _complete(self, status: int, body: bytes) -> Outcome:
        content = json.loads(body)
        return Outcome(content) if status == 200 else Outcome(None, [content["error"]["code"]])


async def post_score(app: Any, inputs: Mapping[str, Any], accept: str) -> tuple[int, str, bytes]:
    """Post inputs to `/score` of an ASGI app; return status, media type and body of its answer."""
    content = json.dumps(inputs).encode()
    headers = {"host": "localhost", "accept": accept, "content-type": "application/json"}
    headers["content-length"] = str(len(content))
    scope = {
        **{"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http"},
        **{"path": "/score", "raw_path": b"/score", "query_string": b"", "root_path": ""},
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "asgi": {"version": "3.0"}},
    }
    messages = [{"type": "http.request", "body": content, "more_body": False}]
    ended = asyncio.Event()
    received: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        received.append(message)

    try:
        await app(scope, receive, send)
    finally:
        ended.set()
    head, body = received[0], b"".join(each.get("body", b"") for each in received[1:])
    content_type = dict(head["headers"]).get(b"content-type", b"").decode()
    return int(head["status"]), content_type, body
