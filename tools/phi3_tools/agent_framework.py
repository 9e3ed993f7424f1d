"""A chat client for Microsoft Agent Framework. This is the only module of the package that imports it.

The extra `[agent-framework]` installs it. Prompt flow cannot be installed in the same environment,
because the two need different versions of OpenTelemetry.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from typing import Any

from agent_framework import (
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    FunctionTool,
    Message,
    ResponseStream,
    UsageDetails,
    validate_tool_mode,
)

from .client import Message as ChatMessage
from .client import Params, Phi3Client, Reply, ToolCall
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
# Options that change nothing in a request to an endpoint that stores nothing.
_WITHOUT_EFFECT = ("metadata", "user")
# Options that change nothing in a request without tools.
_OF_TOOLS = ("tool_choice", "allow_multiple_tool_calls")


class Phi3ChatClient(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """Chat client of Agent Framework for a Phi-3 endpoint.

    The framework calls the functions of an agent's `tools`. The response's `value` is the answer by the
    option `response_format`.

    Args:
        client: the client to use; by default one of the environment (`PHI3_ENDPOINT`, `PHI3_KEY`, …).
        context_window: tokens that prompt and answer share; the oldest turns are left out to fit.
            None sends everything.
        settings: keyword arguments of `BaseChatClient` and of its layers.

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
        params = _params(
            options, self.client.settings.model, has_tools=self.client.contract == "openai"
        )
        if stream:
            return self._build_response_stream(self._updates(chat, params))
        return self._response(chat, params)

    async def _response(self, chat: list[ChatMessage], params: Params) -> ChatResponse:
        reply = await self.client.achat(chat, params, context_window=self.context_window)
        return ChatResponse(
            messages=[Message("assistant", [Content.from_text(reply.text), *_calls(reply)])],
            response_id=reply.request_id,
            model=reply.model,
            finish_reason=reply.finish_reason,
            usage_details=_usage(reply),
            response_format=params.response_format,
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
                    contents=[*_calls(reply), *([Content.from_usage(usage)] if usage else [])],
                    role="assistant",
                    response_id=reply.request_id,
                    model=reply.model,
                    finish_reason=reply.finish_reason,
                    raw_representation=reply,
                )


def _chat(messages: Sequence[Message], instructions: Any) -> list[ChatMessage]:
    """Return Agent Framework's messages as the client's, with the agent's instructions first.

    Raises:
        ConfigError: a message contains something other than text and calls of functions.
    """
    parts = [instructions] if isinstance(instructions, str) else list(instructions or [])
    chat: list[ChatMessage] = [
        {"role": "system", "content": part} for part in parts if part.strip()
    ]
    for number, message in enumerate(messages, 1):
        chat += _messages(message, f"message {number} ({message.role})")
    return chat


def _messages(message: Message, where: str) -> Iterable[ChatMessage]:
    """Yield a message as the client's: one message for each result of a function, or one for the rest.

    Raises:
        ConfigError: the message contains a file, or results of functions with something else.
    """
    calls: list[ToolCall] = []
    has_results = False
    for content in message.contents:
        if content.type == "function_call":
            arguments = _as_text(content.arguments or {})
            calls.append(ToolCall(content.call_id, content.name, arguments))
        elif content.type == "function_result":
            has_results = True
            text = content.exception or _as_text(content.result)
            yield {"role": "tool", "tool_call_id": content.call_id, "content": text}
        elif content.type not in ("text", "usage"):
            raise ConfigError(
                f"{where} contains {content.type}, not text",
                hint="Send text and calls of functions only; this client takes no files.",
            )
    if has_results and (calls or message.text.strip()):
        raise ConfigError(
            f"{where} contains results of functions together with {'calls' if calls else 'text'}",
            hint="Send the results in a message of their own.",
        )
    if not has_results:
        chat_message: ChatMessage = {"role": str(message.role), "content": message.text}
        if calls:
            chat_message["tool_calls"] = calls
        yield chat_message


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _calls(reply: Reply) -> list[Content]:
    return [
        Content.from_function_call(call.id, call.name, arguments=call.arguments_json)
        for call in reply.tool_calls
    ]


def _params(options: Mapping[str, Any], model: str | None, *, has_tools: bool) -> Params:
    """Return an agent's options as generation parameters.

    Args:
        options: options of Agent Framework.
        model: the model that the connection names.
        has_tools: whether the endpoint's contract has fields for tools.

    Raises:
        ConfigError: an option cannot be honoured; the message names it.
    """
    values = {name: value for name, value in options.items() if value is not None}
    values.pop("instructions", None)
    if not values.get("store"):  # to store nothing is what the client does
        values.pop("store", None)
    requested, extra = _structure(values, has_tools=has_tools)
    named_model = values.pop("model", None)
    if named_model not in (None, model):
        raise ConfigError(
            f"the option `model` is {named_model!r}, but the connection's model is {model!r}",
            hint="Set `model` in the connection.",
        )
    for name in _WITHOUT_EFFECT:
        values.pop(name, None)
    extra |= {name: values.pop(name) for name in _EXTRA if name in values}
    if unknown := sorted(set(values) - set(_PARAMS)):
        names = (*_PARAMS, *_EXTRA, "response_format", "tools", *_OF_TOOLS)
        supported = ", ".join(f"`{name}`" for name in names)
        raise ConfigError(
            f"the option `{unknown[0]}` is not supported", hint=f"Supported options: {supported}."
        )
    params = {_PARAMS[name]: value for name, value in values.items()}
    return Params(**params, **requested, extra=extra)


def _structure(values: dict[str, Any], *, has_tools: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the options of tools and of the answer's form out of the options.

    Returns:
        Fields of `Params`, and the further parameters for `Params.extra`.

    Raises:
        ConfigError: a tool is not a function, or the endpoint cannot honour `allow_multiple_tool_calls`.
    """
    requested = {"response_format": values.pop("response_format", None)}
    tools = values.pop("tools", None) or []
    choice, allows_several = (values.pop(name, None) for name in _OF_TOOLS)
    if not tools:
        return requested, {}
    if allows_several is False and not has_tools:
        raise ConfigError(
            "the endpoint's contract cannot honour the option `allow_multiple_tool_calls`",
            hint="Set the connection's contract to openai if the endpoint serves it.",
        )
    requested["tools"] = [_tool(tool) for tool in (tools if isinstance(tools, list) else [tools])]
    requested["tool_choice"] = _tool_choice(choice)
    return requested, {"parallel_tool_calls": False} if allows_several is False else {}


def _tool(tool: Any) -> Mapping[str, Any]:
    if isinstance(tool, FunctionTool):
        return dict(tool.to_json_schema_spec())
    if isinstance(tool, Mapping):
        return tool
    raise ConfigError(
        f"the option `tools` contains {type(tool).__name__}, which is not a function",
        hint="Give Python functions or instances of FunctionTool.",
    )


def _tool_choice(choice: Any) -> Any:
    mode = validate_tool_mode(choice) or {}
    name = mode.get("required_function_name")
    return {"type": "function", "function": {"name": name}} if name else mode.get("mode")


def _usage(reply: Reply) -> UsageDetails | None:
    if not reply.usage:
        return None
    return UsageDetails(
        input_token_count=reply.usage.prompt_tokens,
        output_token_count=reply.usage.completion_tokens,
        total_token_count=reply.usage.total_tokens,
    )
