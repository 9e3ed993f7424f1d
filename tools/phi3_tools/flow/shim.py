"""The names that users' flows import: promptflow's where it is installed, ours elsewhere.

The engine gives flows its own names in any case, because promptflow takes seconds to import. A flow that
runs in promptflow's engine gets promptflow's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from . import decorators
from .errors import NodeError

NAMES = ("tool", "log_metric", "trace", "ToolProvider")
_loading: ContextVar[bool] = ContextVar("phi3_flow_loading", default=False)


@contextmanager
def loading_by_engine() -> Iterator[None]:
    """Give the modules that are imported in the block the names of this package."""
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)


def shared_name(name: str) -> Any:
    """Return `tool`, `log_metric`, `trace` or `ToolProvider`.

    Raises:
        AttributeError: it is another name.
    """
    if name not in NAMES:
        raise AttributeError(name)
    if not _loading.get() and not decorators.is_collecting():
        try:
            return _promptflow_name(name)
        except ImportError:
            pass
    return getattr(decorators, name)


def _promptflow_name(name: str) -> Any:
    if name == "trace":
        from promptflow.tracing import trace

        return trace
    import promptflow.core

    return getattr(promptflow.core, name)


def load_metric_logger() -> None:
    """Import promptflow's `log_metric`, so that an aggregation hears of its calls."""
    import promptflow._core.metric_logger  # noqa: F401


def traced_as_llm(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, traced as an LLM call.

    Prompt flow counts the tokens of LLM calls only, and its public `@trace` has no type. Without the
    private function the tokens are not counted.
    """
    if "promptflow.tracing._trace" not in sys.modules:  # nobody counts
        return function
    try:
        from promptflow.tracing._trace import _traced
        from promptflow.tracing.contracts.trace import TraceType
    except ImportError:
        return function
    return _traced(function, trace_type=TraceType.LLM, name="phi3")  # type: ignore[no-any-return]


def promptflow_is_loaded() -> bool:
    """Return whether this process has imported promptflow."""
    return "promptflow.exceptions" in sys.modules


# -- for tool packages, whose tools both engines run -----------------------------------------------


class _NamedAlike(type):
    """The metaclass of a class that equals promptflow's class of the same name."""

    def __eq__(cls, other: object) -> bool:
        if cls is other:
            return True
        module = str(getattr(other, "__module__", ""))
        return module.startswith("promptflow.") and getattr(other, "__name__", "") == cls.__name__

    __hash__ = type.__hash__


class PromptTemplate(str, metaclass=_NamedAlike):
    """The type of a tool's parameter that gets the text of a prompt file."""


def tool_exception(name: str, message: str, cause: str, is_user_error: bool) -> Exception:
    """Return an exception that both engines report with its error codes.

    It is one of promptflow's exceptions if promptflow is loaded, and else a `NodeError`.

    Args:
        name: name of the exception's class.
        message: its text.
        cause: the last error code, after the name of the class.
        is_user_error: whether the caller has to fix it.
    """
    exception = _exception_class(name, is_user_error, promptflow_is_loaded())(message)
    exception.cause_name = cause  # type: ignore[attr-defined]
    return exception


@cache
def _exception_class(
    name: str, is_user_error: bool, with_promptflow: bool
) -> Callable[[str], Exception]:
    root = "UserError" if is_user_error else "SystemError"
    base: Any = NodeError
    if with_promptflow:
        from promptflow.exceptions import ErrorTarget, SystemErrorException, UserErrorException

        base = UserErrorException if is_user_error else SystemErrorException

    def initialize(self: Any, message: str) -> None:
        if with_promptflow:
            base.__init__(self, message=message, target=ErrorTarget.TOOL)
        else:
            base.__init__(self, message)

    def codes(self: Any) -> list[str]:
        return [root, name, self.cause_name]

    def reduce(self: Any) -> tuple[Any, ...]:
        return tool_exception, (name, str(self), self.cause_name, is_user_error)

    members = {"__init__": initialize, "error_codes": property(codes), "__reduce__": reduce}
    return type(name, (base,), members)
