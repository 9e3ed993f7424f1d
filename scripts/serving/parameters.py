"""The fields of a request besides its texts or messages: which are honoured, and which are refused.

A field that the model cannot honour is refused, never ignored: the answer would not be what the caller
has asked for. Sources: "OpenAI API reference: chat completions", and "GenerationConfig" of transformers.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

MAX_CHOICES, MAX_LOGPROBS, MAX_STOPS = 16, 20, 32
MAX_QUOTED = 64  # characters of a client's text in an error text


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


def refuse(message: str, param: str | None = None) -> NoReturn:
    """Raise the error of a request that is not valid."""
    raise ScoringError(400, message, param)


def describe(value: Any) -> str:
    """Return a value's JSON type, or the value itself if it is a number, for an error text."""
    if value is None:
        return "null"
    types = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return types.get(type(value)) or str(value)


def shorten(text: str, limit: int = MAX_QUOTED) -> str:
    """Return the first `limit` characters of a client's text, for an error text."""
    return text if len(text) <= limit else text[:limit] + "…"


# --- conversions: they raise TypeError, ValueError or OverflowError ---------------------------


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


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _stop_strings(value: Any) -> tuple[str, ...]:
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(s, str) and s for s in strings):
        raise TypeError
    if len(strings) > MAX_STOPS:  # each of them is searched for at each token
        raise ValueError
    return tuple(strings)


def _stream_options(value: Any) -> dict[str, bool]:
    if not isinstance(value, dict) or value.keys() - {"include_usage", "include_obfuscation"}:
        raise TypeError
    return {name: _boolean(option) for name, option in value.items() if option is not None}


def _logit_bias(value: Any) -> dict[int, float]:
    if not isinstance(value, dict) or not all(name.isdecimal() for name in value):
        raise TypeError
    biases = {int(name): _number(bias) for name, bias in value.items()}
    if not all(-100 <= bias <= 100 for bias in biases.values()):
        raise ValueError
    return biases


def _array(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _string_or_object(value: Any) -> Any:
    if not isinstance(value, (str, dict)):
        raise TypeError
    return value


class _NotSupportedError(Exception):
    """The value asks for something that the scoring script cannot do."""


def _only(*supported: Any) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if value not in supported:
            raise _NotSupportedError
        return value

    return convert


# --- the table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """One parameter of a request.

    Attributes:
        name: name of the parameter in a request.
        convert: returns the value in Python's type, or raises TypeError, ValueError or
            OverflowError.
        requirement: completes the error text "<name> must be ...", or the text "<name> is not
            supported, except ...".
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
    Parameter("max_new_tokens", _integer, "an integer of at least 1", low=1,
              aliases=("max_tokens", "max_completion_tokens")),
    Parameter("temperature", _number, "a number from 0 to 2", None, low=0, high=2),
    Parameter("top_p", _number, "a number above 0 and up to 1", 1.0, low=1e-6, high=1),
    Parameter("top_k", _integer, "an integer of at least 1, or 0 or -1 for all tokens", 0, low=-1),
    Parameter("do_sample", _boolean, "true or false"),
    Parameter("repetition_penalty", _number, "a number above 0 and up to 10", 1.0,
              low=1e-6, high=10),
    Parameter("frequency_penalty", _number, "a number from -2 to 2", 0.0, low=-2, high=2),
    Parameter("presence_penalty", _number, "a number from -2 to 2", 0.0, low=-2, high=2),
    Parameter("logit_bias", _logit_bias,
              "an object of token ids, each with a number from -100 to 100", {}),
    Parameter("return_full_text", _boolean, "true or false", False),
    Parameter("stop", _stop_strings,
              f"a string or an array of up to {MAX_STOPS} strings, none of them empty", ()),
    Parameter("seed", _integer, "an integer of 64 bits", None,
              low=-(2**63), high=2**63 - 1),
    Parameter("stream", _boolean, "true or false", False),
    Parameter("stream_options", _stream_options, "an object with include_usage: true or false", {}),
    Parameter("n", _integer, f"an integer from 1 to {MAX_CHOICES}", 1, low=1, high=MAX_CHOICES),
    Parameter("logprobs", _boolean, "true or false", False),
    Parameter("top_logprobs", _integer, f"an integer from 0 to {MAX_LOGPROBS}", 0,
              low=0, high=MAX_LOGPROBS),
    Parameter("model", _string, "a string"),
    Parameter("response_format", _object,
              'an object with the type "text", "json_object" or "json_schema"', {"type": "text"}),
    Parameter("modalities", _only(["text"]), '["text"]'),
    Parameter("tools", _array, "an array of functions", ()),
    Parameter("tool_choice", _string_or_object,
              '"none", "auto", "required", or an object with the name of a function'),
    Parameter("parallel_tool_calls", _boolean, "true or false", True),
)  # fmt: skip
# The names of the first parameter, which Hugging Face and OpenAI call differently.
LIMIT_FIELDS = (PARAMETERS[0].name, *PARAMETERS[0].aliases)
# Fields that have no effect on an answer, whatever their value is.
WITHOUT_EFFECT = (
    *("user", "safety_identifier", "prompt_cache_key", "service_tier", "metadata", "store"),
    "use_cache",
)
# Fields of OpenAI's API and of transformers that a caller could expect to have an effect.
NOT_SUPPORTED = (
    *("functions", "function_call", "audio", "prediction", "reasoning_effort", "verbosity"),
    *("web_search_options", "best_of", "echo", "suffix", "min_p", "typical_p", "min_tokens"),
    *("min_new_tokens", "max_length", "min_length", "num_beams", "num_return_sequences"),
    *("length_penalty", "no_repeat_ngram_size", "bad_words_ids", "eos_token_id", "stop_token_ids"),
    *("ignore_eos", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
)


def read_parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validated value of every row of PARAMETERS, by name.

    A parameter that is null has its default. Raises ScoringError 400.
    """
    _refuse_other_fields(settings)
    return {parameter.name: _read_parameter(parameter, settings) for parameter in PARAMETERS}


def refuse_unknown(fields: Mapping[str, Any], known: Iterable[str], prefix: str = "") -> None:
    """Refuse a field that is not known, and name the known one that is most like it.

    Fields that are null count as missing.
    """
    known = list(known)
    for name, value in fields.items():
        if value is None or name in known:
            continue
        short = shorten(name)
        similar = difflib.get_close_matches(short, known, n=1)
        hint = f"; did you mean {prefix}{similar[0]}?" if similar else ""
        refuse(f"{prefix}{short} is not a known field{hint}", prefix + short)


def _refuse_other_fields(settings: Mapping[str, Any]) -> None:
    for name in NOT_SUPPORTED:
        if settings.get(name) is not None:
            refuse(f"{name} is not supported", name)
    names = [name for parameter in PARAMETERS for name in (parameter.name, *parameter.aliases)]
    refuse_unknown(settings, (*names, *WITHOUT_EFFECT, *NOT_SUPPORTED))


def _read_parameter(parameter: Parameter, settings: Mapping[str, Any]) -> Any:
    all_names = (parameter.name, *parameter.aliases)
    names = [name for name in all_names if settings.get(name) is not None]
    values = [_read_value(parameter, name, settings[name]) for name in names]
    if not values:
        return parameter.default
    if any(value != values[0] for value in values):
        refuse(f"{' and '.join(names)} are the same setting, but have different values", names[0])
    return values[0]


def _read_value(parameter: Parameter, name: str, raw: Any) -> Any:
    try:
        value = parameter.convert(raw)
    except _NotSupportedError:
        refuse(f"{name} is not supported, except {parameter.requirement}", name)
    except (TypeError, ValueError, OverflowError):
        refuse(f"{name} must be {parameter.requirement}, not {describe(raw)}", name)
    if isinstance(value, (int, float)) and not parameter.low <= value <= parameter.high:
        refuse(f"{name} must be {parameter.requirement}, not {describe(raw)}", name)
    return value
