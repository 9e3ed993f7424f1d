"""How an answer is generated, whatever goes over the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True)
class Params:
    """How to generate. None leaves a choice to the endpoint.

    Attributes:
        max_new_tokens: tokens of the answer at most.
        temperature: 0 means greedy decoding.
        top_p: nucleus sampling.
        stop: a text, or texts, at which to stop.
        seed: for repeatable sampling, where the endpoint supports it.
        extra: further parameters, sent under their own names; None removes one of the above from
            the request, so that `{"max_new_tokens": None, "max_tokens": 9}` renames it.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] | None = None
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (fits, wanted) in _PARAM_CHECKS.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise ConfigError(f"{name} is {value!r}, but must be {wanted}")

    @property
    def stops(self) -> list[str] | None:
        """`stop` as the list that goes over the wire."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or []) or None


def is_whole(value: object) -> bool:
    """Whether it is an integer; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return is_whole(value) or isinstance(value, float)


def _are_texts(value: object) -> bool:
    return isinstance(value, (str, list, tuple)) and all(isinstance(item, str) for item in value)


_PARAM_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (lambda v: is_whole(v) and v >= 1, "a whole number of at least 1"),
    "temperature": (lambda v: _is_number(v) and 0 <= v <= 2, "a number between 0 and 2"),
    "top_p": (lambda v: _is_number(v) and 0 < v <= 1, "a number above 0 and at most 1"),
    "stop": (_are_texts, "a text or a list of texts"),
    "seed": (is_whole, "a whole number"),
}
