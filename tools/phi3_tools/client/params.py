"""Generation parameters, independent of the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .schemas import read_answer_format
from .tool_calls import read_tool_choice, read_tools


@dataclass(frozen=True)
class Params:
    """Generation parameters. With None, the endpoint uses its default.

    Attributes:
        max_new_tokens: maximum number of tokens of the answer.
        temperature: sampling temperature from 0 to 2; 0 means greedy decoding.
        top_p: probability mass of nucleus sampling.
        stop: one or several texts at which generation stops.
        seed: seed for repeatable sampling, if the endpoint supports it.
        response_format: form of the answer: a JSON schema, a class of pydantic, `"json_object"`, or the
            value of OpenAI's `response_format`. The answer is checked, and `Reply.parsed` is its value.
        tools: tools that the model may call, in OpenAI's form. The calls are in `Reply.tool_calls`.
        tool_choice: `none`, `auto`, `required` or `{"type": "function", "function": {"name": …}}`.
        extra: further parameters, sent under their own names. The value None removes a parameter from
            the request: `{"max_new_tokens": None, "max_tokens": 9}` renames one.

    Raises:
        ConfigError: a value is outside its range.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] | None = None
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    response_format: Any = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: Any = None

    def __post_init__(self) -> None:
        for name, (fits, wanted) in _PARAM_CHECKS.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise ConfigError(f"{name} is {value!r}, but must be {wanted}")
        if not isinstance(self.extra, Mapping):
            raise ConfigError(f"extra is {self.extra!r}, but must be a mapping of parameters")
        read_answer_format(self.response_format)
        read_tool_choice(self.tool_choice, read_tools(self.tools))

    @property
    def stops(self) -> list[str] | None:
        """`stop` as the list that is sent, or None."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or []) or None


def is_integer(value: object) -> bool:
    """Return whether the value is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return is_integer(value) or isinstance(value, float)


def _are_texts(value: object) -> bool:
    return isinstance(value, (str, list, tuple)) and all(isinstance(item, str) for item in value)


_PARAM_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (lambda v: is_integer(v) and v >= 1, "a whole number of at least 1"),
    "temperature": (lambda v: _is_number(v) and 0 <= v <= 2, "a number between 0 and 2"),
    "top_p": (lambda v: _is_number(v) and 0 < v <= 1, "a number above 0 and at most 1"),
    "stop": (_are_texts, "a text or a list of texts"),
    "seed": (is_integer, "a whole number"),
}
