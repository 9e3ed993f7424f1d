"""A chat client for Microsoft Agent Framework. This is the only module of the package that imports it.

The extra `[agent-framework]` installs it. Prompt flow cannot be installed in the same environment,
because the two need different versions of OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

from agent_framework import (
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    Message,
    ResponseStream,
    UsageDetails,
)

from .client import Message as ChatMessage
from .client import Params, Phi3Client, Reply
from .errors import ConfigError

__all__ = ["Phi3ChatClient"]

# Agent Framework's option -> field of `Params`.
_PARAMS = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop",
    "seed": "seed",
}
# Options that are sent to the endpoint under their own names; it refuses those that it does not know.
_EXTRA = ("frequency_penalty", "presence_penalty", "logit_bias")
# Options that change nothing in a request without tools to an endpoint that stores nothing.
_WITHOUT_EFFECT = ("tool_choice", "allow_multiple_tool_calls", "metadata", "user")


class Phi3ChatClient(ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """Chat client of Agent Framework for a Phi-3 endpoint.

    Args:
        client: the client to use; by default one of the environment (`PHI3_ENDPOINT`, `PHI3_KEY`, …).
        context_window: tokens that prompt and answer share; the oldest turns are left out to fit.
            None sends everything.
        settings: keyword arguments of `BaseChatClient` and of its middleware layer.

    Errors of the endpoint are raised as the package's own classes (`Phi3Error`).

    Example:
        >>> agent = Phi3ChatClient().as_agent(instructions="Answer in one sentence.")
        >>> print(await agent.run("Who founded Microsoft?"))
    """

    OTEL_PROVIDER_NAME = "phi3"

    def __init__(
        self,
        client: Phi3Client | None = None,
        *,
        context_window: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.client = client or Phi3Client.from_connection()
        self.context_window = context_window

    def service_url(self) -> str:
        """Return the scoring URL."""
        return self.client.settings.endpoint

    def _inner_get_response(
        self,
        *,
        messages: Sequence[Message],
        stream: bool,
        options: Mapping[str, Any],
        **kwargs: Any,
    ) -> Awaitable[ChatResponse] | ResponseStream[ChatResponseUpdate, ChatResponse]:
        chat = _chat(messages, options.get("instructions"))
        params = _params(options, self.client.settings.model)
        if stream:
            return self._build_response_stream(self._updates(chat, params))
        return self._response(chat, params)

    async def _response(self, chat: list[ChatMessage], params: Params) -> ChatResponse:
        reply = await self.client.achat(chat, params, context_window=self.context_window)
        return ChatResponse(
            messages=[Message("assistant", [reply.text])],
            response_id=reply.request_id,
            model=reply.model,
            finish_reason=reply.finish_reason,
            usage_details=_usage(reply),
            raw_representation=reply,
        )

    async def _updates(
        self, chat: list[ChatMessage], params: Params
    ) -> AsyncIterator[ChatResponseUpdate]:
        window = self.context_window
        async with self.client.astream(chat, params, context_window=window) as stream:
            async for piece in stream:
                yield ChatResponseUpdate(contents=[Content.from_text(piece)], role="assistant")
            if reply := stream.reply:
                usage = _usage(reply)
                yield ChatResponseUpdate(
                    contents=[Content.from_usage(usage)] if usage else [],
                    role="assistant",
                    response_id=reply.request_id,
                    model=reply.model,
                    finish_reason=reply.finish_reason,
                    raw_representation=reply,
                )


def _chat(messages: Sequence[Message], instructions: Any) -> list[ChatMessage]:
    """Return Agent Framework's messages as the client's, with the agent's instructions first.

    Raises:
        ConfigError: a message contains something other than text.
    """
    parts = [instructions] if isinstance(instructions, str) else list(instructions or [])
    chat: list[ChatMessage] = [
        {"role": "system", "content": part} for part in parts if part.strip()
    ]
    for number, message in enumerate(messages, 1):
        for content in message.contents:
            if content.type != "text":
                raise ConfigError(
                    f"message {number} ({message.role}) contains {content.type}, not text",
                    hint="Send text only; this client has no tools and takes no files.",
                )
        chat.append({"role": str(message.role), "content": message.text})
    return chat


def _params(options: Mapping[str, Any], model: str | None) -> Params:
    """Return an agent's options as generation parameters.

    Args:
        options: options of Agent Framework.
        model: the model that the connection names.

    Raises:
        ConfigError: an option cannot be honoured; the message names it.
    """
    values = {name: value for name, value in options.items() if value is not None}
    values.pop("instructions", None)
    for name in ("tools", "store"):  # no tools, and nothing to store, is what the client does
        if not values.get(name):
            values.pop(name, None)
    named_model = values.pop("model", None)
    if named_model not in (None, model):
        raise ConfigError(
            f"the option `model` is {named_model!r}, but the connection's model is {model!r}",
            hint="Set `model` in the connection.",
        )
    for name in _WITHOUT_EFFECT:
        values.pop(name, None)
    extra = {name: values.pop(name) for name in _EXTRA if name in values}
    if "tools" in values:
        raise ConfigError("the option `tools` is set, but this client has no tool calls")
    if unknown := sorted(set(values) - set(_PARAMS)):
        supported = ", ".join(f"`{name}`" for name in (*_PARAMS, *_EXTRA))
        raise ConfigError(
            f"the option `{unknown[0]}` is not supported", hint=f"Supported options: {supported}."
        )
    return Params(**{_PARAMS[name]: value for name, value in values.items()}, extra=extra)


def _usage(reply: Reply) -> UsageDetails | None:
    if not reply.usage:
        return None
    return UsageDetails(
        input_token_count=reply.usage.prompt_tokens,
        output_token_count=reply.usage.completion_tokens,
        total_token_count=reply.usage.total_tokens,
    )
