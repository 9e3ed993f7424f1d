"""One OpenTelemetry span a call, where OpenTelemetry is there and switched on; else nothing.

Attributes follow "Semantic conventions for generative client AI spans". What was said goes onto the
span only when OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is `true`, as those conventions ask.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from .messages import Message, Reply
from .params import Params

log = logging.getLogger("phi3_tools")
ANSWERED_LOG = "answered at attempt %d: %d tokens in, %d out"  # `phi3 run` counts by it
CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

try:
    from opentelemetry import trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError:
    trace = None


class CallSpan:
    """Takes down what becomes known of a call."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def reply(self, reply: Reply) -> None:
        """Note how the call ended."""
        if usage := reply.usage:
            log.debug(ANSWERED_LOG, reply.attempts, usage.prompt_tokens, usage.completion_tokens)
        if self._span is None or not self._span.is_recording():
            return
        found = {
            "gen_ai.response.model": reply.model,
            "azure.service.request.id": reply.request_id,
            "gen_ai.response.finish_reasons": [reply.finish_reason]
            if reply.finish_reason
            else None,
            "gen_ai.usage.input_tokens": usage.prompt_tokens if usage else None,
            "gen_ai.usage.output_tokens": usage.completion_tokens if usage else None,
            "phi3.contract": reply.contract,
            "phi3.attempts": reply.attempts,
        }
        _set(self._span, found)
        if _captures():
            said = [{"role": "assistant", "parts": [{"type": "text", "content": reply.text}]}]
            self._span.set_attribute("gen_ai.output.messages", json.dumps(said))

    def failed(self, error: BaseException) -> None:
        """Note the error's class; its words may hold what was said, so they stay out."""
        if self._span is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(Status(StatusCode.ERROR))


def _captures() -> bool:
    return os.environ.get(CAPTURE_VARIABLE, "").lower() == "true"


def _set(span: Any, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        if value is not None:
            span.set_attribute(name, value)


def start(url: str, model: str | None, messages: Sequence[Message], params: Params) -> Any:
    """A started span that is not made current: a stream outlives the block that opened it."""
    if trace is None:
        return None
    span = trace.get_tracer("phi3_tools").start_span(
        f"chat {model}" if model else "chat", kind=SpanKind.CLIENT
    )
    if not span.is_recording():
        return span
    host = urlsplit(url)
    given = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.inference",
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": params.max_new_tokens,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.request.stop_sequences": params.stops,
        "gen_ai.request.seed": params.seed,
        "server.address": host.hostname,
        "server.port": host.port,
    }
    _set(span, given)
    if _captures():
        said = [
            {"role": m["role"], "parts": [{"type": "text", "content": m["content"]}]}
            for m in messages
        ]
        span.set_attribute("gen_ai.input.messages", json.dumps(said))
    return span


@contextmanager
def call_span(
    url: str, model: str | None, messages: Sequence[Message], params: Params
) -> Iterator[CallSpan]:
    """A span around one call; an error that leaves the block is noted on it."""
    span = start(url, model, messages, params)
    noted = CallSpan(span)
    try:
        yield noted
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            noted.failed(error)
        raise
    finally:
        if span is not None:
            span.end()
