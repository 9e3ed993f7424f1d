"""Where OpenTelemetry spans go: nowhere, unless this is called with a destination.

promptflow's own serving app sends spans, metrics and logs, with what was said in them, as soon as it
finds certain variables in the environment, and the exporter for Application Insights reports on itself
to Microsoft. Here the switch is the command line's alone; and what was said leaves only when
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is `true`, as "Semantic conventions for generative
client AI spans" ask.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from phi3_tools.client import CAPTURE_VARIABLE

from ..errors import OpsError

OTLP, INSIGHTS = "otlp", "appinsights"
CONNECTION_STRING = "APPLICATIONINSIGHTS_CONNECTION_STRING"
SERVICE = "phi3"
# promptflow's app, and what instruments it, would send by these, whatever the command line says.
READ_BY_OTHERS = (
    CONNECTION_STRING,
    "APPINSIGHTS_INSTRUMENTATIONKEY",
    "AML_APP_INSIGHTS_KEY",
    *(f"OTEL_EXPORTER_OTLP{part}_ENDPOINT" for part in ("", "_TRACES", "_METRICS", "_LOGS")),
)
QUIET = {
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED": "true",
}
# promptflow's spans carry whole inputs and outputs; what of them is no text.
PLAIN = (
    *("framework", "span_type", "function", "node_name", "execution_target"),
    *("batch_run_id", "line_run_id", "line_number", "flow_id", "session_id"),
)
PLAIN_PREFIXES = ("__computed__.cumulative_token_count.", "llm.usage.", "llm.response.model")
PROMPTFLOW = "promptflow"
FIX = f"Give {OTLP}=http://HOST:4318, or {INSIGHTS} with {CONNECTION_STRING} in the environment."


@contextmanager
def sending_traces(destination: str | None) -> Iterator[None]:
    """`start` for the length of a block."""
    stop = start_tracing(destination)
    try:
        yield
    finally:
        stop()


def start_tracing(destination: str | None) -> Callable[[], None]:
    """Send this process's spans to a destination from now on; before promptflow makes its app.

    Args:
        destination: `otlp=URL` (OTLP over HTTP; `/v1/traces` is added to a URL without a path),
            `appinsights` (its connection string comes from the environment), or None for nowhere.

    Returns:
        What sends the spans that still wait, and ends it.

    Raises:
        OpsError: no such destination, no http(s) URL, or no connection string.
    """
    exporter = _exporter(destination) if destination is not None else None
    for name in READ_BY_OTHERS:
        os.environ.pop(name, None)
    if exporter is None:
        return lambda: None
    from opentelemetry import trace
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(_without_texts(exporter)))
    trace.set_tracer_provider(provider)

    def stop() -> None:
        provider.shutdown()

    return stop


def _exporter(destination: str) -> Any:
    kind, _, url = destination.partition("=")
    if kind == OTLP and url:
        return _otlp(url)
    if destination == INSIGHTS:
        return _insights()
    raise OpsError("--trace has no such destination", FIX)  # it may hold a key


def _otlp(url: str) -> Any:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise OpsError("--trace otlp= wants an http or https URL without a password", FIX)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        fix = "Install opentelemetry-exporter-otlp-proto-http."
        raise OpsError("there is no exporter for OTLP", fix) from error
    path = parts.path if parts.path.strip("/") else "/v1/traces"
    return OTLPSpanExporter(endpoint=parts._replace(path=path).geturl())


def _insights() -> Any:
    text = os.environ.get(CONNECTION_STRING)
    if not text:
        raise OpsError(f"{CONNECTION_STRING} is not set", "Copy it from the resource's overview.")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        from azure.monitor.opentelemetry.exporter import AzureMonitorTraceExporter
    except ImportError as error:
        fix = "Install azure-monitor-opentelemetry-exporter."
        raise OpsError("there is no exporter for Application Insights", fix) from error
    try:
        # Offline, it would keep what was said in files.
        return AzureMonitorTraceExporter(connection_string=text, disable_offline_storage=True)
    except ValueError as error:
        fix = "It looks like InstrumentationKey=…;IngestionEndpoint=https://…"
        raise OpsError(f"{CONNECTION_STRING} is no connection string", fix) from error


def _without_texts(exporter: Any) -> Any:
    """An exporter that leaves out what was said, unless that is asked for."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class WithoutTexts(SpanExporter):  # type: ignore[misc]
        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            asked = os.environ.get(CAPTURE_VARIABLE, "").lower() == "true"
            return exporter.export(spans if asked else [plain(span) for span in spans])

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return bool(exporter.force_flush(timeout_millis))

    return WithoutTexts()


def plain(span: Any) -> Any:
    """A span of promptflow's without inputs, outputs and error texts; any other as it is.

    Args:
        span: an ended span of the OpenTelemetry SDK.
    """
    attributes = dict(span.attributes or {})
    if attributes.get("framework") != PROMPTFLOW:
        return span
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Status

    kept = {
        name: value
        for name, value in attributes.items()
        if name in PLAIN or name.startswith(PLAIN_PREFIXES)
    }
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=kept,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
