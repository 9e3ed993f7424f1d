"""One OpenTelemetry span per call, if OpenTelemetry is installed and enabled.

Attributes follow "Semantic conventions for generative client AI spans". The span contains the texts of
messages only if OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is `true`, as the conventions require.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from .messages import Message, Reply
from .params import Params

CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

try:
    from opentelemetry import trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError:
    trace = None


class CallSpan:
    """The span of one call, or nothing if spans are off."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def reply(self, reply: Reply, redact: Callable[[str], str]) -> None:
        """Record the reply.

        Args:
            reply: the reply; its short fields do not contain the key.
            redact: function that removes the key from a text.
        """
        if self._span is None or not self._span.is_recording():
            return
        usage = reply.usage
        attributes = {
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
        _set(self._span, attributes)
        if _captures_content():
            output = _with_parts([_redacted(reply, redact).message])
            self._span.set_attribute("gen_ai.output.messages", output)

    def failed(self, error: BaseException) -> None:
        """Record the class of an error; its message is left out, because it may contain message texts."""
        if self._span is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(Status(StatusCode.ERROR))


def _redacted(reply: Reply, redact: Callable[[str], str]) -> Reply:
    calls = (replace(c, arguments_json=redact(c.arguments_json)) for c in reply.tool_calls)
    return replace(reply, text=redact(reply.text), tool_calls=tuple(calls))


def _captures_content() -> bool:
    return os.environ.get(CAPTURE_VARIABLE, "").lower() == "true"


def _with_parts(messages: Sequence[Message]) -> str:
    """Return messages as JSON in the form of the semantic conventions."""
    return json.dumps([{"role": m["role"], "parts": list(_parts(m))} for m in messages])


def _parts(message: Message) -> Iterator[dict[str, Any]]:
    if message["role"] == "tool":
        call_id = message["tool_call_id"]
        yield {"type": "tool_call_response", "id": call_id, "response": message["content"]}
        return
    calls = message.get("tool_calls", [])
    if message["content"] or not calls:
        yield {"type": "text", "content": message["content"]}
    for call in calls:
        yield {"type": "tool_call", "id": call["id"], **call["function"]}


def _set(span: Any, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        if value is not None:
            span.set_attribute(name, value)


def _start(url: str, model: str | None, messages: Sequence[Message], params: Params) -> Any:
    """Start a span that is not the current one, because a stream may outlive the caller's block."""
    if trace is None:
        return None
    span = trace.get_tracer("phi3_tools").start_span(
        f"chat {model}" if model else "chat", kind=SpanKind.CLIENT
    )
    if not span.is_recording():
        return span
    host = urlsplit(url)
    attributes = {
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
    _set(span, attributes)
    if _captures_content():
        span.set_attribute("gen_ai.input.messages", _with_parts(messages))
    return span


@contextmanager
def tool_span(name: str, call_id: str) -> Iterator[None]:
    """Make the current span for one call of a local tool; an error is recorded by its class.

    Args:
        name: name of the tool.
        call_id: id of the call.
    """
    if trace is None:
        yield
        return
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.id": call_id,
    }
    with trace.get_tracer("phi3_tools").start_as_current_span(
        f"execute_tool {name}",
        attributes=attributes,
        record_exception=False,  # its text may contain an argument
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except Exception as error:
            CallSpan(span).failed(error)
            raise


@contextmanager
def call_span(
    url: str, model: str | None, messages: Sequence[Message], params: Params
) -> Iterator[CallSpan]:
    """Make a span for one call; an error that leaves the block is recorded."""
    span = _start(url, model, messages, params)
    call = CallSpan(span)
    try:
        yield call
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            call.failed(error)
        raise
    finally:
        if span is not None:
            span.end()
