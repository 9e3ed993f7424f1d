"""Reads requests in the three contracts of a Phi-3 endpoint. Pure functions, no I/O.

Sources: "Deploy MLflow models to online endpoints" (a list of texts), the model catalog's
chat-completion schema (`input_string` with messages), and "OpenAI API reference: chat completions".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from generation import GenerationParams

Contract = Literal["list", "catalog", "openai"]
Message = dict[str, str]
ROLES = ("system", "user", "assistant")
SHAPES = (
    'expected {"input_data": ["text", ...], "params": {...}},'
    ' {"input_data": {"input_string": [{"role": ..., "content": ...}], "parameters": {...}}}'
    ' or {"messages": [{"role": ..., "content": ...}]}'
)


class ScoringError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status of the answer.
        message: what is wrong and how to correct it.
        param: name of the field that is wrong; None if no single field is.
    """

    def __init__(self, status: int, message: str, param: str | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer, in the shape of "OpenAI API reference: errors"."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.status}
        return {"error": error}


# --- parameters ------------------------------------------------------------------------------


def _integer(value: Any) -> int:
    # Typed clients may send 128.0. In Python, True is an int; in JSON, it is not a number.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise TypeError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _stop_strings(value: Any) -> tuple[str, ...]:
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(s, str) and s for s in strings):
        raise TypeError
    return tuple(strings)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


@dataclass(frozen=True)
class Parameter:
    """One parameter of a request.

    Attributes:
        name: name of the parameter in a request.
        convert: returns the value in Python's type, or raises TypeError, ValueError or
            OverflowError.
        requirement: completes the error text "<name> must be ...".
        default: value of a request that does not set the parameter.
        low: smallest number that is allowed.
        high: largest number that is allowed.
        aliases: other names of the parameter.
    """

    name: str
    convert: Callable[[Any], Any]
    requirement: str
    default: Any = None
    low: float = -math.inf
    high: float = math.inf
    aliases: tuple[str, ...] = ()


PARAMETERS = (
    Parameter("max_new_tokens", _integer, "an integer of at least 1", 128, low=1,
              aliases=("max_tokens", "max_completion_tokens")),
    Parameter("temperature", _number, "a number from 0 to 2", None, low=0, high=2),
    Parameter("top_p", _number, "a number above 0 and up to 1", 1.0, low=1e-6, high=1),
    Parameter("do_sample", _boolean, "true or false"),
    Parameter("return_full_text", _boolean, "true or false", False),
    Parameter("stop", _stop_strings, "a string or an array of strings, none of them empty", ()),
    Parameter("seed", _integer, "an integer from -2**63 to 2**63 - 1", None,
              low=-(2**63), high=2**63 - 1),
    Parameter("stream", _boolean, "true or false", False),
    Parameter("stream_options", _mapping, "an object", {}),
    Parameter("n", _integer, "1", 1, low=1, high=1),  # one answer per request
)  # fmt: skip


def read_parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validated value of every row of PARAMETERS, by name.

    A parameter that is null has its default. Raises ScoringError 400.
    """
    return {parameter.name: _read_parameter(parameter, settings) for parameter in PARAMETERS}


def _read_parameter(parameter: Parameter, settings: Mapping[str, Any]) -> Any:
    all_names = (parameter.name, *parameter.aliases)
    names = [name for name in all_names if settings.get(name) is not None]
    values = [_read_value(parameter, name, settings[name]) for name in names]
    if not values:
        return parameter.default
    if any(value != values[0] for value in values):
        _refuse(f"{' and '.join(names)} are the same setting, but have different values", names[0])
    return values[0]


def _read_value(parameter: Parameter, name: str, raw: Any) -> Any:
    try:
        value = parameter.convert(raw)
    except (TypeError, ValueError, OverflowError):
        _refuse(f"{name} must be {parameter.requirement}, not {_describe(raw)}", name)
    if isinstance(value, (int, float)) and not parameter.low <= value <= parameter.high:
        _refuse(f"{name} must be {parameter.requirement}, not {_describe(raw)}", name)
    return value


def _generation_params(values: dict[str, Any]) -> GenerationParams:
    temperature = values["temperature"]
    # Without a request for sampling, the same question always has the same answer.
    sample = values["do_sample"]
    if sample is None:
        sample = temperature is not None
    return GenerationParams(
        max_new_tokens=values["max_new_tokens"],
        do_sample=bool(sample and temperature != 0),
        temperature=1.0 if temperature is None else temperature or 1.0,
        top_p=values["top_p"],
        stop=values["stop"],
        seed=values["seed"],
    )


# --- requests --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoringRequest:
    """A valid request.

    Attributes:
        contract: the contract of the request, which its answer follows.
        prompts: texts ("list"), or the messages of one conversation ("catalog" and "openai").
        params: how to generate the answers.
        return_full_text: whether an answer of the "list" contract starts with its prompt.
        stream: whether the answer is sent as server-sent events.
        include_usage: whether a stream ends with token counts.
    """

    contract: Contract
    prompts: list[str] | list[list[Message]]
    params: GenerationParams
    return_full_text: bool = False
    stream: bool = False
    include_usage: bool = False


def read_request(payload: Any) -> ScoringRequest:
    """Detect the contract of a request and read it.

    Raises:
        ScoringError: status 400, with the name of the field that is wrong.
    """
    if not isinstance(payload, dict):
        _refuse(f"the body is {_describe(payload)}; {SHAPES}")
    if "messages" in payload:
        return _make_request("openai", [_messages(payload["messages"], "messages")], payload)
    if "input_data" not in payload:
        _refuse(f"the body has neither input_data nor messages; {SHAPES}")
    data = payload["input_data"]
    if isinstance(data, dict):
        return _read_input_string(data, payload)
    return _make_request("list", _texts(data, "input_data"), _object(payload, "params"))


def wants_stream(payload: Any) -> bool:
    """Return whether a request asks for server-sent events. An invalid request does not."""
    try:
        return read_request(payload).stream
    except ScoringError:
        return False


def refuse_list_stream() -> NoReturn:
    """Raise the error for a stream in the "list" contract, which has no events."""
    _refuse("a list of texts cannot be streamed; send messages instead", "stream")


def _read_input_string(data: dict[str, Any], payload: dict[str, Any]) -> ScoringRequest:
    if "input_string" not in data:
        _refuse(f"input_data has no input_string; {SHAPES}", "input_data")
    content = data["input_string"]
    settings = {**_object(payload, "params"), **_object(data, "parameters")}
    # Some samples put the list of messages into another list.
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], list):
        content = content[0]
    if isinstance(content, list) and any(isinstance(item, dict) for item in content):
        return _make_request("catalog", [_messages(content, "input_string")], settings)
    # Azure's no-code scoring script also accepts texts here, and answers with a list.
    return _make_request("list", _texts(content, "input_string"), settings)


def _make_request(contract: Contract, prompts: Any, settings: Mapping[str, Any]) -> ScoringRequest:
    values = read_parameters(settings)
    if contract == "list" and values["stream"]:
        refuse_list_stream()
    return ScoringRequest(
        contract=contract,
        prompts=prompts,
        params=_generation_params(values),
        return_full_text=values["return_full_text"],
        stream=values["stream"],
        include_usage=bool(values["stream_options"].get("include_usage")),
    )


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        _refuse(f"{name} must be an object, not {_describe(value)}", name)
    return value


def _texts(value: Any, name: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        _refuse(f"{name} must be an array of strings or of messages; {SHAPES}", name)
    return [_check_unicode(text, name) for text in texts]


def _messages(value: Any, name: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        _refuse(f"{name} must be an array of at least one message", name)
    return [_message(item, f"{name}[{index}]") for index, item in enumerate(value)]


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, dict):
        _refuse(f"{name} must be an object with role and content, not {_describe(value)}", name)
    if value.get("role") not in ROLES:
        _refuse(f"{name}.role must be one of {', '.join(ROLES)}", f"{name}.role")
    content = _content(value.get("content"), f"{name}.content")
    return {"role": value["role"], "content": _check_unicode(content, f"{name}.content")}


def _content(value: Any, name: str) -> str:
    """Return the text of a message's content: a string, or OpenAI's array of text parts."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        _refuse(f"{name} must be a string or an array of text parts", name)
    return "".join(str(text) for text in texts)


def _check_unicode(text: str, name: str) -> str:
    # JSON can contain half of a surrogate pair, which tokenizers do not accept.
    if any("\ud800" <= char <= "\udfff" for char in text):
        _refuse(f"{name} is not valid Unicode: it contains half of a surrogate pair", name)
    return text


def _refuse(message: str, param: str | None = None) -> NoReturn:
    raise ScoringError(400, message, param)


def _describe(value: Any) -> str:
    """Return a value's JSON type, or the value itself if it is a number, for an error text."""
    if value is None:
        return "null"
    types = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return types.get(type(value)) or str(value)
