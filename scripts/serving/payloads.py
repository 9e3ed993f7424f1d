"""The three contracts of a Phi-3 endpoint: reading requests, shaping answers. Pure, no I/O.

Sources: "Deploy MLflow models to online endpoints" (a list of texts), the model catalog's
chat-completion schema (`input_string` of messages), and "OpenAI API reference: chat completions".
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from generation import Completion, Params

Contract = Literal["list", "catalog", "openai"]
Message = dict[str, str]
ROLES = ("system", "user", "assistant")
SHAPES = (
    'expected {"input_data": ["text", ...], "params": {...}},'
    ' {"input_data": {"input_string": [{"role": ..., "content": ...}], "parameters": {...}}}'
    ' or {"messages": [{"role": ..., "content": ...}]}'
)


class ScoringError(Exception):
    """A request that is answered with an error. `param` names the field at fault."""

    def __init__(self, status: int, message: str, param: str | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        """The answer's body, in the shape of "OpenAI API reference: errors"."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.status}
        return {"error": error}


def _integer(value: Any) -> int:
    # JSON from a typed client may carry 128.0; True is an int in Python, and no number here.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise TypeError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
        raise TypeError
    return tuple(stops)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


@dataclass(frozen=True)
class Parameter:
    """One row of PARAMETERS: what a request may set, and to what."""

    name: str
    read: Callable[[Any], Any]
    needs: str
    default: Any = None
    low: float = -math.inf
    high: float = math.inf
    aliases: tuple[str, ...] = ()


PARAMETERS = (
    Parameter("max_new_tokens", _integer, "a whole number from 1", 128, low=1,
              aliases=("max_tokens", "max_completion_tokens")),
    Parameter("temperature", _number, "a number from 0 to 2", None, low=0, high=2),
    Parameter("top_p", _number, "a number above 0, up to 1", 1.0, low=1e-6, high=1),
    Parameter("do_sample", _flag, "true or false"),
    Parameter("return_full_text", _flag, "true or false", False),
    Parameter("stop", _stops, "a text or a list of texts, none of them empty", ()),
    Parameter("seed", _integer, "a whole number below 2**63", None, low=-(2**63), high=2**63 - 1),
    Parameter("stream", _flag, "true or false", False),
    Parameter("stream_options", _mapping, "an object", {}),
    Parameter("n", _integer, "1: one answer a request", 1, low=1, high=1),
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request that was understood. `prompts` are texts, or one conversation's messages."""

    contract: Contract
    prompts: list[str] | list[list[Message]]
    params: Params
    return_full_text: bool = False
    stream: bool = False
    include_usage: bool = False


def read_request(payload: Any) -> Request:
    """Detect the contract and read the request. Raises ScoringError 400 that names the field."""
    if not isinstance(payload, dict):
        _wrong(f"the body is {_kind(payload)}; {SHAPES}")
    if "messages" in payload:
        return _request("openai", [_messages(payload["messages"], "messages")], payload)
    if "input_data" not in payload:
        _wrong(f"the body has neither input_data nor messages; {SHAPES}")
    data = payload["input_data"]
    if isinstance(data, dict):
        return _read_input_string(data, payload)
    return _request("list", _texts(data, "input_data"), _object(payload, "params"))


def wants_stream(payload: Any) -> bool:
    """Whether the request asks for server-sent events; False for what cannot be read."""
    try:
        return read_request(payload).stream
    except ScoringError:
        return False


def _read_input_string(data: dict[str, Any], payload: dict[str, Any]) -> Request:
    if "input_string" not in data:
        _wrong(f"input_data has no input_string; {SHAPES}", "input_data")
    said = data["input_string"]
    settings = {**_object(payload, "params"), **_object(data, "parameters")}
    # Some samples nest the messages once more.
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], list):
        said = said[0]
    if isinstance(said, list) and any(isinstance(item, dict) for item in said):
        return _request("catalog", [_messages(said, "input_string")], settings)
    # Azure's no-code scoring script unwraps texts as well, and answers a list.
    return _request("list", _texts(said, "input_string"), settings)


def _request(contract: Contract, prompts: Any, settings: Mapping[str, Any]) -> Request:
    values = read_parameters(settings)
    if contract == "list" and values["stream"]:
        _wrong("a list of texts cannot be streamed: send messages", "stream")
    return Request(
        contract,
        prompts,
        _params(values),
        values["return_full_text"],
        values["stream"],
        bool(values["stream_options"].get("include_usage")),
    )


def read_parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every row of PARAMETERS, by name, validated; a null counts as not given."""
    return {row.name: _read_parameter(row, settings) for row in PARAMETERS}


def _read_parameter(row: Parameter, settings: Mapping[str, Any]) -> Any:
    names = [n for n in (row.name, *row.aliases) if settings.get(n) is not None]
    values = {name: _read_value(row, name, settings[name]) for name in names}
    if not values:
        return row.default
    first, *others = values.values()
    if any(other != first for other in others):
        _wrong(f"{' and '.join(names)} are the same setting, with different values", names[0])
    return first


def _read_value(row: Parameter, name: str, raw: Any) -> Any:
    try:
        value = row.read(raw)
    except (TypeError, ValueError, OverflowError):
        _wrong(f"{name} must be {row.needs}, not {_kind(raw)}", name)
    if isinstance(value, (int, float)) and not row.low <= value <= row.high:
        _wrong(f"{name} must be {row.needs}, not {raw}", name)
    return value


def _params(values: dict[str, Any]) -> Params:
    temperature = values["temperature"]
    # Greedy unless sampling is asked for: the same question then has the same answer.
    sample = values["do_sample"]
    if sample is None:
        sample = temperature is not None
    return Params(
        max_new_tokens=values["max_new_tokens"],
        do_sample=bool(sample and temperature != 0),
        temperature=1.0 if temperature is None else temperature or 1.0,
        top_p=values["top_p"],
        stop=values["stop"],
        seed=values["seed"],
    )


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        _wrong(f"{name} must be an object, not {_kind(value)}", name)
    return value


def _texts(value: Any, name: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        _wrong(f"{name} must be a list of texts or of messages; {SHAPES}", name)
    return [_encodable(text, name) for text in texts]


def _messages(value: Any, name: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        _wrong(f"{name} must be a list of messages with at least one in it", name)
    return [_message(item, f"{name}[{at}]") for at, item in enumerate(value)]


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, dict):
        _wrong(f"{name} must be an object with role and content, not {_kind(value)}", name)
    if value.get("role") not in ROLES:
        _wrong(f"{name}.role must be one of {', '.join(ROLES)}", f"{name}.role")
    content = _encodable(_content(value.get("content"), f"{name}.content"), f"{name}.content")
    return {"role": value["role"], "content": content}


def _content(value: Any, name: str) -> str:
    """A text, or OpenAI's list of text parts."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        _wrong(f"{name} must be a text or a list of text parts", name)
    return "".join(str(text) for text in texts)


def _encodable(text: str, name: str) -> str:
    # JSON can carry half of a surrogate pair, which no tokenizer takes.
    if any("\ud800" <= char <= "\udfff" for char in text):
        _wrong(f"{name} holds half of a surrogate pair, which is no text", name)
    return text


def _wrong(message: str, param: str | None = None) -> NoReturn:
    raise ScoringError(400, message, param)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")


# --- answers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """What the answers to one request have in common."""

    request: Request
    model: str
    prompt_tokens: int
    id: str
    created: int

    @classmethod
    def to(cls, request: Request, model: str, prompt_tokens: int) -> Reply:
        return cls(request, model, prompt_tokens, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()))

    def whole(self, answer: Completion) -> dict[str, Any]:
        """The answer in one piece."""
        if self.request.contract == "catalog":
            return {"output": answer.text, **self._catalog_end(answer)}
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage(answer)}

    def start(self) -> list[dict[str, Any]]:
        """The events before the first text."""
        catalog = self.request.contract == "catalog"
        return [] if catalog else [self._chunk({"role": "assistant", "content": ""})]

    def delta(self, text: str) -> dict[str, Any]:
        """The event for a piece of text."""
        if self.request.contract == "catalog":
            return {"output": text}
        return self._chunk({"content": text})

    def end(self, answer: Completion) -> list[dict[str, Any]]:
        """The events after the last text."""
        if self.request.contract == "catalog":
            return [{"output": "", **self._catalog_end(answer)}]
        events = [self._chunk({}, answer.finish_reason)]
        if self.request.include_usage:
            usage = self._usage(answer)
            events.append({**self._head("chat.completion.chunk"), "choices": [], "usage": usage})
        return events

    def _catalog_end(self, answer: Completion) -> dict[str, Any]:
        return {
            "finish_reason": answer.finish_reason,
            "usage": self._usage(answer),
            "model": self.model,
            "id": self.id,
        }

    def _chunk(self, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _usage(self, answer: Completion) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": answer.tokens,
            "total_tokens": self.prompt_tokens + answer.tokens,
        }


def list_answer(texts: Sequence[str], answers: Sequence[Completion], full: bool) -> list[str]:
    """The bare list of the MLflow contract; with full, each text in front of its answer."""
    return [(text if full else "") + answer.text for text, answer in zip(texts, answers)]
