"""`phi3 flow record`: run a flow over some lines, and store what it answered and what the endpoint did.

Requests go through a server on loopback, which passes them on and keeps the answers by a hash of the
request. The key is added when a request is passed on, so no recording contains it.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from phi3_tools import Phi3Client, Phi3Error, Settings
from phi3_tools import __version__ as tools_version
from phi3_tools.client import CONTRACTS, read_settings, redactor, request_url
from phi3_tools.connections import Connection
from phi3_tools.flow import Engine, FlowError, LineError, load_flow, override_inputs
from phi3_tools.parity import (
    Exchange,
    LoopbackServer,
    RecordedLine,
    Recording,
    deployment_of,
    group_exchanges,
    loopback_server,
    plain_outputs,
    request_hash,
    write_recording,
)

from ..errors import OpsError, first_line
from ..flows import FlowDefinition, content_hash
from ..pf import PROBE_QUESTION, PROMPTFLOW, PromptflowExecutor, require_connection

TRANSIENT = (408, 429)  # and 5xx: the client asks again, and the next answer may differ
TIMEOUT_S = 600.0
# Fields that decide what the client sends. The others, such as limits, stay those of the connection.
RECORDED_FIELDS = ("contract", "model", "template", "deployment")
MASK = "***"


class Recorder(LoopbackServer):
    """Passes requests on to endpoints and keeps their answers.

    A request that was answered for good gets the same answer again, so that a recording is a function of
    the request.

    Attributes:
        targets: first part of the path -> settings of the endpoint, with the URL of its requests.
        exchanges: hash and answer of each request that was passed on.
        requests: hashes of all requests, in order.
        failure: why the first request without an answer could not be passed on, or None.
        key: key that every request must have, because the endpoint's own key is added to it.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.targets: dict[str, Settings] = {}
        self.exchanges: list[tuple[str, Exchange]] = []
        self.requests: list[str] = []
        self.failure: str | None = None
        self.key = secrets.token_urlsafe(32)
        self._final: dict[str, Exchange] = {}
        self._lock = threading.Lock()

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        sent = {name.lower(): value for name, value in headers.items()}.get("authorization", "")
        if not secrets.compare_digest(sent.encode(), f"Bearer {self.key}".encode()):
            return Exchange(401, "application/json", "{}")
        digest = request_hash(path, deployment_of(headers), body)
        with self._lock:
            self.requests.append(digest)
            known = self._final.get(digest)
        if known is not None:
            return known
        try:
            exchange = self._pass_on(self.targets[path.split("/")[1]], headers, body)
        except Exception as error:  # no answer of the endpoint: the recording would be wrong
            self.failure = self.failure or f"{type(error).__name__} at {path}"
            return Exchange(400, "application/json", "{}")
        with self._lock:
            self.exchanges.append((digest, exchange))
            if exchange.status < 500 and exchange.status not in TRANSIENT:
                self._final[digest] = exchange
        return exchange

    def _pass_on(self, target: Settings, headers: Mapping[str, str], body: bytes) -> Exchange:
        import requests

        authorization = target.auth.header()
        sent = {n: v for n, v in headers.items() if n.lower() in ("accept", "content-type")}
        sent["Authorization"] = authorization
        if deployment := deployment_of(headers):
            sent["azureml-model-deployment"] = deployment
        response = requests.post(
            target.endpoint, data=body, headers=sent, timeout=TIMEOUT_S, allow_redirects=False
        )
        text = response.content.decode("utf-8", "replace")
        key = authorization.removeprefix("Bearer ")
        content_type = response.headers.get("content-type", "application/json")
        redact = redactor(key).redact
        # The plain forms are replaced first: the redactor may also remove a backslash that follows the
        # key, so that the body would not be valid JSON.
        masked = redact(text.replace(key, MASK).replace(json.dumps(key)[1:-1], MASK))
        media_type = redact(content_type).encode("latin-1", "replace").decode("latin-1")
        return Exchange(response.status_code, media_type, masked)


@dataclass
class _Recorded:
    """The lines of a recording while it is made."""

    lines: list[RecordedLine] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    metrics_error: list[str] | None = None
    engine: str = ""


def record_flow(
    flow: FlowDefinition,
    rows: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    engine: str,
    connection: str | None = None,
    on_line: Callable[[int], None] = lambda number: None,
) -> Recording:
    """Run the lines one after the other, complete and streamed, and write `recording.json`.

    Args:
        flow: the flow.
        rows: the inputs of each line.
        out: folder for the recording.
        engine: `PHI3` or `PROMPTFLOW`.
        connection: connection that every node uses; None takes the flow's.
        on_line: called with the number of each line that has ended.

    Raises:
        OpsError: the flow cannot run, or a connection does not exist. Nothing is written.
    """
    nodes = {name: node for node, name in flow.connection_names({}).items()}
    targets = {name: _settings_of(node, connection or name) for name, node in nodes.items()}
    with _recorder(targets) as (recorder, replaced, fields):
        record = _record_promptflow if engine == PROMPTFLOW else _record_phi3
        recorded = record(flow.folder, rows, replaced.__getitem__, recorder, on_line)
        exchanges = group_exchanges(recorder.exchanges)
    if recorder.failure:
        what = f"a request could not be passed on to the endpoint: {recorder.failure}"
        raise OpsError(what, "Check the endpoint with `phi3 doctor`, and record again.")
    recording = Recording(
        flow={
            "name": flow.folder.resolve().name,
            "version": str(flow.version or ""),
            "sha256": content_hash(flow.folder),
        },
        engine=recorded.engine,
        connections=fields,
        lines=recorded.lines,
        metrics=recorded.metrics,
        metrics_error=recorded.metrics_error,
        exchanges=exchanges,
    )
    write_recording(out, recording)
    return recording


def _settings_of(node: str, name: str) -> Settings:
    """Return the settings of a node's connection.

    Raises:
        OpsError: it does not exist, or is not a connection to a Phi-3 endpoint.
    """
    connection = require_connection(name)
    try:
        return read_settings(connection)
    except Phi3Error as error:
        what = f"node {node!r} uses {name!r}, which is not a connection to a Phi-3 endpoint"
        raise OpsError(
            f"{what}: {first_line(error)}", "Only requests to Phi-3 endpoints can be recorded."
        ) from error


@contextmanager
def _recorder(
    targets: Mapping[str, Settings],
) -> Iterator[tuple[Recorder, dict[str, Connection], dict[str, dict[str, str]]]]:
    """Yield a recorder, the connections that lead to it, and their fields for the recording."""
    contracts = {name: _detected_contract(settings) for name, settings in targets.items()}
    recorder = loopback_server(Recorder)
    recorder.targets = {
        quote(name, safe=""): replace(
            settings, endpoint=request_url(settings.endpoint, CONTRACTS[contracts[name]])
        )
        for name, settings in targets.items()
    }
    replaced: dict[str, Connection] = {}
    fields: dict[str, dict[str, str]] = {}
    for name, settings in targets.items():
        path = f"/{quote(name, safe='')}{urlsplit(settings.endpoint).path}"
        values = {each: getattr(settings, each) for each in RECORDED_FIELDS}
        fields[name] = {"endpoint": path, **{k: str(v) for k, v in values.items() if v}}
        fields[name]["contract"] = contracts[name]
        configs = {**fields[name], "endpoint": recorder.address + path}
        replaced[name] = Connection(name, configs, {"key": recorder.key})
    with recorder.running():
        yield recorder, replaced, fields


def _detected_contract(settings: Settings) -> str:
    """Return the contract of an endpoint, so that the replay need not try several."""
    if settings.contract != "auto":
        return settings.contract
    try:
        with Phi3Client(settings) as client:
            client.chat(PROBE_QUESTION)
            return client.contract
    except Phi3Error as error:
        raise OpsError(f"{settings.endpoint} does not answer: {first_line(error)}") from error


def _record_phi3(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    connections: Callable[[str], Connection],
    recorder: Recorder,
    on_line: Callable[[int], None],
) -> _Recorded:
    recorded = _Recorded(engine=f"phi3 {tools_version}")
    results = []
    try:
        engine = Engine(override_inputs(load_flow(folder), {}), connections)
    except FlowError as error:
        raise OpsError(f"{folder} cannot run: {error}") from error
    with engine:
        for number, inputs in enumerate(rows):
            result = engine.run(inputs)
            results.append(result)
            requests = _taken(recorder)
            text = None
            with engine.stream(inputs) as stream, suppress(LineError):
                text = "".join(stream) if stream.name else None
            streamed = [stream.name, text] if stream.name and text is not None else None
            failed = result.error is not None
            recorded.lines.append(
                RecordedLine(
                    inputs=inputs,
                    outputs=None if failed else plain_outputs(result.outputs),
                    error=_codes(result.error),
                    streamed=streamed,
                    requests=requests,
                    stream_requests=_taken(recorder),
                    stream_error=_codes(stream.result.error),
                )
            )
            on_line(number)
        if engine.has_aggregation:
            aggregated = engine.aggregate(results)
            recorded.metrics = dict(aggregated.metrics)
            recorded.metrics_error = _codes(aggregated.error)
    return recorded


def _record_promptflow(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    connections: Callable[[str], Connection],
    recorder: Recorder,
    on_line: Callable[[int], None],
) -> _Recorded:
    executor = PromptflowExecutor(folder, connections)
    recorded = _Recorded(engine=f"promptflow {executor.version}")
    lines = []
    for number, inputs in enumerate(rows):
        line = executor.run(inputs)
        lines.append((inputs, line))
        requests = _taken(recorder)
        streamed = executor.stream(inputs)
        recorded.lines.append(
            RecordedLine(
                inputs=inputs,
                outputs=None if line.outputs is None else plain_outputs(line.outputs),
                error=line.error,
                streamed=streamed.streamed,
                requests=requests,
                stream_requests=_taken(recorder),
                stream_error=streamed.error,
            )
        )
        on_line(number)
    aggregated = executor.aggregate(lines)
    recorded.metrics, recorded.metrics_error = aggregated.metrics, aggregated.error
    return recorded


def _codes(error: LineError | None) -> list[str] | None:
    return None if error is None else list(error.codes)


def _taken(recorder: Recorder) -> list[str]:
    """Return the requests since the last call."""
    requests, recorder.requests = recorder.requests, []
    return requests
