"""The destination of OpenTelemetry spans. Without one, no spans are sent.

promptflow's own serving app sends spans, metrics and logs, with questions and answers in them, if certain
environment variables are set. The exporter for Application Insights also reports on itself to Microsoft.
Here only the command line decides whether spans are sent. Spans contain questions and answers only if
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is `true`, as "Semantic conventions for generative
client AI spans" require.
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
# promptflow's app and its instrumentation would send data if these are set, without any option.
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
# promptflow's spans contain complete inputs and outputs. These attributes contain neither.
PLAIN_ATTRIBUTES = (
    *("framework", "span_type", "function", "node_name", "execution_target"),
    *("batch_run_id", "line_run_id", "line_number", "flow_id", "session_id"),
)
PLAIN_PREFIXES = ("__computed__.cumulative_token_count.", "llm.usage.", "llm.response.model")
PROMPTFLOW = "promptflow"
FIX = f"Give {OTLP}=http://HOST:4318, or {INSIGHTS} with {CONNECTION_STRING} in the environment."


@contextmanager
def sending_traces(destination: str | None) -> Iterator[None]:
    """Send this process's spans to a destination inside the block; see `start_tracing`."""
    stop = start_tracing(destination)
    try:
        yield
    finally:
        stop()


def start_tracing(destination: str | None) -> Callable[[], None]:
    """Start to send this process's spans to a destination. Call it before promptflow creates its app.

    Args:
        destination: `otlp=URL` (OTLP over HTTP; `/v1/traces` is added to a URL without a path),
            `appinsights` (its connection string comes from the environment), or None to send no spans.

    Returns:
        A function that sends the remaining spans and stops.

    Raises:
        OpsError: the destination is unknown, the URL is not an http or https URL, the connection string
            is missing or wrong, or the exporter is not installed.
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
    provider.add_span_processor(BatchSpanProcessor(_exporter_without_texts(exporter)))
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
    raise OpsError("the destination of --trace is unknown", FIX)  # it may contain a key: not shown


def _otlp(url: str) -> Any:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise OpsError("--trace otlp= needs an http or https URL without a password", FIX)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        fix = "Install opentelemetry-exporter-otlp-proto-http."
        raise OpsError("the exporter for OTLP is not installed", fix) from error
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
        raise OpsError("the exporter for Application Insights is not installed", fix) from error
    try:
        # Without a connection, it would store the spans in files.
        return AzureMonitorTraceExporter(connection_string=text, disable_offline_storage=True)
    except ValueError as error:
        fix = "Its form is InstrumentationKey=…;IngestionEndpoint=https://…"
        raise OpsError(f"{CONNECTION_STRING} is not a connection string", fix) from error


def _exporter_without_texts(exporter: Any) -> Any:
    """Return an exporter that removes questions and answers, unless `CAPTURE_VARIABLE` is `true`."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class WithoutTexts(SpanExporter):  # type: ignore[misc]
        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            capture = os.environ.get(CAPTURE_VARIABLE, "").lower() == "true"
            return exporter.export(spans if capture else [without_texts(span) for span in spans])

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return bool(exporter.force_flush(timeout_millis))

    return WithoutTexts()


def without_texts(span: Any) -> Any:
    """Return promptflow's span without inputs, outputs and error texts, and any other span unchanged.

    Args:
        span: an ended span of the OpenTelemetry SDK.
    """
    attributes = dict(span.attributes or {})
    if attributes.get("framework") != PROMPTFLOW:
        return span
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Status

    plain_attributes = {
        name: value
        for name, value in attributes.items()
        if name in PLAIN_ATTRIBUTES or name.startswith(PLAIN_PREFIXES)
    }
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=plain_attributes,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
