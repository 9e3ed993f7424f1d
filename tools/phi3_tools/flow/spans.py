"""One OpenTelemetry span per line and per node, if OpenTelemetry is installed and enabled.

The spans contain names and error classes, never inputs or outputs. A node's calls of an endpoint are
children of its span; a streamed call may end after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import LineError

try:
    from opentelemetry import trace
    from opentelemetry.trace import Status, StatusCode
except ImportError:
    trace = None


@contextmanager
def flow_span(kind: str, name: str) -> Iterator[None]:
    """Make the current span for a block; an error that leaves the block is recorded by its class.

    Args:
        kind: `flow`, `node` or `aggregation`.
        name: name of the flow or node.
    """
    if trace is None:
        yield
        return
    with trace.get_tracer("phi3_tools").start_as_current_span(
        f"{kind} {name}",
        attributes={f"phi3.{kind}": name},
        record_exception=False,  # its text may contain an input
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except BaseException as error:
            cause = (error.cause or error) if isinstance(error, LineError) else error
            span.set_attribute("error.type", type(cause).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise
