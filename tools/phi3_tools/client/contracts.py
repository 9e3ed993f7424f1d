"""The contracts (wire formats) of endpoints: encode, decode, detect. Pure functions, no I/O.

Three contracts, named as in a connection's `contract`:

| name     | request                                                        | answer                     |
|----------|----------------------------------------------------------------|----------------------------|
| `mlflow` | `{"input_data": ["text"], "params": {…}}`                      | `["text"]`                 |
| `chat`   | `{"input_data": {"input_string": […], "parameters": {…}}}`     | `{"output": "text", …}`    |
| `openai` | `{"messages": […], "max_tokens": …, "stream": …}`              | `{"choices": […], …}`, SSE |

Sources: "Deploy MLflow models to online endpoints", the model catalog's sample input of
Phi-3-mini-4k-instruct, and OpenAI's "Chat completions" reference. Requests are encoded by the contract.
Answers are decoded by their own form, because servers mix the forms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from ..errors import BadAnswerError, ConfigError, ScoringFailedError, well_formed
from .messages import Message, Usage, open_with_user, render
from .params import Params, is_integer
from .schemas import read_answer_format
from .tool_calls import ToolCall, decode_calls
from .wire_json import load_json, parse_json

AUTO = "auto"
TEXT_PARTS = ("text", "output_text")  # types of the parts of a content that are text
COMPLETIONS = "/chat/completions"
# Where an `mlflow` request is put into the chat template: client, or the model's own MLflow flavour.
TEMPLATES = ("client", "server")
# The prompt template of a Phi-3 that `phi3 finetune` has trained: the turn of one question. The training
# code writes it into the model (`prompt_template` in outputs.py); a test compares the two.
PROMPT_TEMPLATE = render([{"role": "user", "content": "{prompt}"}])


@dataclass(frozen=True)
class Decoded:
    """Content of an answer, or of one event of a streamed answer.

    An event has the pieces of its tool calls in `deltas`; a complete answer has `tool_calls`.
    The text of an event may begin or end with half a surrogate pair; all other texts are well formed.
    """

    text: str
    usage: Usage | None = None
    finish_reason: str | None = None
    model: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    deltas: Any = None


@dataclass(frozen=True)
class Contract:
    """One wire format.

    Attributes:
        name: value of a connection's `contract`.
        encode: function (messages, parameters, whether to stream, model name) -> request body.
        streams: whether answers can be server-sent events.
        answers: function that returns whether a JSON answer has the form of this contract.
        prompt: function (messages) -> prompt text, if the answer may repeat it; otherwise -> None.
        has_tools: whether requests have fields for schemas and tools.
    """

    name: str
    encode: Callable[[Sequence[Message], Params, bool, str | None], dict[str, Any]]
    streams: bool
    answers: Callable[[Any], bool]
    prompt: Callable[[Sequence[Message]], str | None] = lambda messages: None
    has_tools: bool = False


def _without_none(values: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**values, **extra}.items() if value is not None}


def _sampling(params: Params) -> dict[str, Any]:
    """Return the parameters with the names of transformers' `generate`, as both Azure contracts do."""
    greedy = params.temperature == 0
    return {
        "max_new_tokens": params.max_new_tokens,
        "temperature": None if greedy else params.temperature,
        "top_p": None if greedy else params.top_p,
        "do_sample": None if params.temperature is None else not greedy,
        "stop": params.stops,
        "seed": params.seed,
    }


def _encode_mlflow(
    messages: Sequence[Message], params: Params, stream: bool, model: str | None
) -> dict[str, Any]:
    return _mlflow(render(messages), params)


def _encode_for_template(
    messages: Sequence[Message], params: Params, stream: bool, model: str | None
) -> dict[str, Any]:
    """Encode for a model that puts the text into a user turn itself.

    The text is the rendered chat without the parts that such a template adds.
    """
    full_prompt = _prompt_for_template(messages)
    before, after = PROMPT_TEMPLATE.split("{prompt}")
    return _mlflow(full_prompt.removeprefix(before).removesuffix(after), params)


def _prompt_for_template(messages: Sequence[Message]) -> str:
    return render(open_with_user(messages))


def _mlflow(text: str, params: Params) -> dict[str, Any]:
    values = _sampling(params) | {"return_full_text": False}
    return {"input_data": [text], "params": _without_none(values, params.extra)}


def _encode_chat(
    messages: Sequence[Message], params: Params, stream: bool, model: str | None
) -> dict[str, Any]:
    # `stream` is sent only if it is true: an image that does not know it may refuse the request.
    values = _sampling(params) | {"stream": True if stream else None}
    parameters = _without_none(values, params.extra)
    return {"input_data": {"input_string": [dict(m) for m in messages], "parameters": parameters}}


def _encode_openai(
    messages: Sequence[Message], params: Params, stream: bool, model: str | None
) -> dict[str, Any]:
    answer_format = read_answer_format(params.response_format)
    values = {
        "model": model,
        "max_tokens": params.max_new_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "stop": params.stops,
        "seed": params.seed,
        "stream": True if stream else None,
        "stream_options": {"include_usage": True} if stream else None,
        "response_format": answer_format.wire if answer_format else None,
        "tools": params.tools or None,
        "tool_choice": params.tool_choice,
    }
    return {"messages": [dict(m) for m in messages], **_without_none(values, params.extra)}


def _has(key: str) -> Callable[[Any], bool]:
    return lambda payload: isinstance(payload, dict) and key in payload


CONTRACTS = {
    contract.name: contract
    for contract in (
        Contract("chat", _encode_chat, True, _has("output")),
        Contract(
            "mlflow", _encode_mlflow, False, lambda payload: isinstance(payload, list), render
        ),
        Contract("openai", _encode_openai, True, _has("choices"), has_tools=True),
    )
}

_FOR_TEMPLATE = replace(
    CONTRACTS["mlflow"], encode=_encode_for_template, prompt=_prompt_for_template
)


def candidates(name: str, url: str, template: str = "client") -> list[Contract]:
    """Return the contracts that an endpoint may speak, likeliest first.

    Args:
        name: `auto`, which decides by the URL, or the name of a contract.
        url: the scoring URL.
        template: where an `mlflow` request is put into the chat template, one of `TEMPLATES`.

    Raises:
        ConfigError: `name` or `template` is unknown.
    """
    if template not in TEMPLATES:
        known = " or ".join(f"`{side}`" for side in TEMPLATES)
        raise ConfigError(f"the connection's `template` is {template!r}, but must be {known}")
    contracts = _contracts_named(name, url)
    return [_FOR_TEMPLATE if template == "server" and c.name == "mlflow" else c for c in contracts]


def _contracts_named(name: str, url: str) -> list[Contract]:
    if name != AUTO:
        if name not in CONTRACTS:
            known = ", ".join([AUTO, *sorted(CONTRACTS)])
            raise ConfigError(
                f"the connection's `contract` is {name!r}, but must be one of {known}"
            )
        return [CONTRACTS[name]]
    if is_openai_url(url):
        return [CONTRACTS["openai"]]
    return [CONTRACTS["chat"], CONTRACTS["mlflow"]]


def is_openai_url(url: str) -> bool:
    """Return whether the path is one of OpenAI's, or empty (the target of a serverless endpoint)."""
    path = urlsplit(url).path.rstrip("/")
    return not path or path.endswith(("/v1", COMPLETIONS))


def request_url(url: str, contract: Contract) -> str:
    """Return the URL of requests: for OpenAI, the completions path is added to a base URL."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if contract.name == "openai" and (not path or path.endswith("/v1")):
        return parts._replace(path=f"{path or '/v1'}{COMPLETIONS}").geturl()
    return url


def decode(payload: Any, *, prompt: str | None = None) -> Decoded:
    """Return the answer in a JSON payload of any known form.

    Args:
        payload: the parsed JSON.
        prompt: the rendered prompt that was sent; it is removed from an answer that begins with it.

    Raises:
        ScoringFailedError: the payload contains an error or nothing instead of an answer.
        BadAnswerError: the form is unknown.
    """
    if isinstance(payload, str):
        return _decode_text(payload, prompt)
    if isinstance(payload, list):
        return Decoded(_cut_echo(_first_text(payload), prompt))
    if isinstance(payload, dict):
        return _decode_object(payload, prompt)
    raise BadAnswerError(f"the endpoint's answer is a JSON {type(payload).__name__}")


def _decode_text(text: str, prompt: str | None) -> Decoded:
    """Decode a JSON string.

    A scoring script that serializes its answer itself sends JSON inside a JSON string. A text that only
    looks like JSON is the model's own text.
    """
    if text[:1] in ("[", "{"):
        with suppress(ValueError, BadAnswerError):
            return decode(parse_json(text), prompt=prompt)
    return Decoded(_cut_echo(text, prompt))


def _decode_object(payload: dict[str, Any], prompt: str | None) -> Decoded:
    raise_for_error(payload)
    details: dict[str, Any] = {
        "usage": _usage(payload.get("usage")),
        "finish_reason": _text_or_none(payload.get("finish_reason")),
        "model": _text_or_none(payload.get("model")),
    }
    if isinstance(payload.get("output"), str):
        return Decoded(payload["output"], **details)
    if isinstance(payload.get("choices"), list) and payload["choices"]:
        return _decode_choice(payload["choices"][0], details)
    for name in ("output", "predictions"):
        if isinstance(payload.get(name), list):
            return Decoded(_cut_echo(_first_text(payload[name]), prompt), **details)
    text = _content_text(_dict(payload.get("message")).get("content"))
    if text is not None:
        return Decoded(text, **details)
    if payload.get("output", payload) is None or not payload:
        # The catalog's serving image answers this if its engine fails.
        raise ScoringFailedError("the endpoint reported success, but gave no answer")
    keys = ", ".join(sorted(payload))
    raise BadAnswerError(
        "the endpoint answered a JSON object of unknown form", detail=f"keys: {keys}"
    )


def _decode_choice(choice: Any, details: dict[str, Any]) -> Decoded:
    choice = _dict(choice)
    message = _dict(choice.get("message"))
    text, calls = _content_text(message.get("content")), decode_calls(message)
    if text is None and not calls:
        raise BadAnswerError("the endpoint's first choice has no message content")
    details["finish_reason"] = _text_or_none(choice.get("finish_reason"))
    return Decoded(text or "", **details, tool_calls=calls)


def _content_text(content: Any) -> str | None:
    """Return the text of a message's content: a text, or the texts of a list of parts.

    Parts of another type, such as the reasoning before an answer, are left out. The result is None if
    the content has no text.
    """
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [text for text in map(_part_text, parts) if text is not None]
    return "".join(texts) if texts else None


def _part_text(part: Any) -> str | None:
    if isinstance(part, dict) and part.get("type", "text") in TEXT_PARTS:
        part = part.get("text")
    return part if isinstance(part, str) else None


def raise_for_error(payload: Any) -> None:
    """Raise the error that a payload with status 200 contains.

    Known forms are `{"error": …}`, `{"output": null, "error": …}` and vLLM's `{"object": "error", …}`.

    Raises:
        ScoringFailedError: the payload contains an error.
    """
    if isinstance(payload, dict) and (payload.get("error") or payload.get("object") == "error"):
        raise ScoringFailedError("the model failed to answer", detail=error_text(payload))


def error_text(payload: Any) -> str:
    """Return the message in an error payload of any form."""
    inner = payload
    while inner:
        payload = inner
        keys = ("error", "message", "detail", "Message") if isinstance(payload, dict) else ()
        inner = next((payload[key] for key in keys if payload.get(key)), None)
    return payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)


def _first_text(items: list[Any]) -> str:
    item: Any = items[0] if items else None
    while isinstance(item, list) and item:
        item = item[0]
    if isinstance(item, dict) and "content" in item:  # a message
        item = _content_text(item["content"])
    elif isinstance(item, dict):  # a pipeline's or a data frame's record
        item = item.get("generated_text", next(iter(item.values()), None))
    if isinstance(item, list) and item and isinstance(item[-1], dict):  # a pipeline's chat
        item = _content_text(item[-1].get("content"))
    if not isinstance(item, str):
        raise BadAnswerError("the endpoint's answer is a list without a text")
    return item


def _cut_echo(text: str, prompt: str | None) -> str:
    """Remove an echo of the prompt, with or without special tokens, from the front of an answer."""
    if prompt:
        for echo in (prompt, _without_markup(prompt)):
            if text.startswith(echo):
                return text[len(echo) :].removesuffix("<|end|>").strip()
    return text


def _without_markup(prompt: str) -> str:
    return re.sub(r"<\|(system|user|assistant|end)\|>", "", prompt)


def _usage(payload: Any) -> Usage | None:
    if not isinstance(payload, dict):
        return None
    counts = [payload.get("prompt_tokens"), payload.get("completion_tokens", 0)]
    return Usage(*counts) if all(is_integer(count) for count in counts) else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text_or_none(value: Any) -> str | None:
    return well_formed(value) if isinstance(value, str) and value else None


def decode_event(data: str) -> Decoded:
    """Decode the data of a server-sent event: a chat completion chunk, or a piece of a chat answer.

    Events of other forms (content filters, pings) have an empty text.

    Raises:
        ScoringFailedError: the event contains an error.
        BadAnswerError: the event is not a JSON object.
    """
    try:
        payload = load_json(data)
    except ValueError as error:
        raise BadAnswerError(
            "the stream contains an event that is not JSON", detail=data
        ) from error
    if not isinstance(payload, dict):
        raise BadAnswerError("the stream contains an event that is not a JSON object", detail=data)
    raise_for_error(payload)
    choices = payload.get("choices")
    choice = _dict(choices[0]) if isinstance(choices, list) and choices else {}
    delta = _dict(choice.get("delta")) or _dict(choice.get("message"))
    text = delta.get("content") if "choices" in payload else payload.get("output")
    reason = choice.get("finish_reason") or payload.get("finish_reason")
    return Decoded(
        text=_content_text(text) or "",
        usage=_usage(payload.get("usage")),
        finish_reason=_text_or_none(reason),
        model=_text_or_none(payload.get("model")),
        deltas=delta.get("tool_calls"),
    )
