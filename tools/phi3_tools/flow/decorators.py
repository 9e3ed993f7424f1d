"""`tool`, `trace` and `log_metric`, without promptflow but accepted by it.

They do not import promptflow. A tool that is decorated here looks to promptflow like one of its own, and
is traced by it if promptflow runs the tool.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])

STREAMING_OPTION = "_streaming_option_parameter"  # promptflow's attribute


@overload
def tool(func: F) -> F: ...


@overload
def tool(
    func: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    type: str | None = None,
    input_settings: Any = None,
    streaming_option_parameter: str | None = None,
    **kwargs: Any,
) -> Callable[[F], F]: ...


def tool(
    func: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    type: str | None = None,
    input_settings: Any = None,
    streaming_option_parameter: str | None = None,
    **kwargs: Any,
) -> Any:
    """Mark a function as the tool of a node.

    Args:
        func: the function, if the decorator is used without arguments.
        name: name of the tool; by default that of the function.
        description: description of the tool.
        type: type of the tool, such as `python` or `custom_llm`.
        input_settings: settings of the inputs for promptflow's editor.
        streaming_option_parameter: the parameter that the engine sets to true if it wants a stream.
        kwargs: further settings for promptflow's editor.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        wrapper = _traceable(function)
        settings = {
            "__tool": None,
            "__name": name,
            "__description": description,
            "__type": type,
            "__input_settings": input_settings,
            "__extra_info": kwargs,
        }
        for key, value in settings.items():
            setattr(wrapper, key, value)
        if streaming_option_parameter:
            setattr(wrapper, STREAMING_OPTION, streaming_option_parameter)
        return wrapper

    return decorate if func is None else decorate(func)


def trace(func: F) -> F:
    """Mark a function whose calls promptflow records as spans, if promptflow runs the flow."""
    return _traceable(func)  # type: ignore[return-value]


class ToolProvider:
    """Base class of a tool that is a method; the node's literals are also the constructor's arguments."""

    @classmethod
    def get_initialize_inputs(cls) -> dict[str, inspect.Parameter]:
        """Return the parameters of the constructor."""
        parameters = inspect.signature(cls.__init__).parameters
        return {name: parameter for name, parameter in parameters.items() if name != "self"}


def is_tool(value: Any) -> bool:
    """Return whether a value is a function that `tool`, promptflow's or this one, has marked."""
    return inspect.isfunction(value) and hasattr(value, "__tool")


def _traceable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls the given one, through promptflow's tracer if that is loaded."""
    traced: list[Callable[..., Any]] = []

    def target() -> Callable[..., Any]:
        if traced:
            return traced[0]
        tracer = sys.modules.get("promptflow.tracing._trace")
        if tracer is None or not hasattr(tracer, "_traced"):
            return function
        traced.append(tracer._traced(function))
        return traced[0]

    wrapper: Callable[..., Any]
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await target()(*args, **kwargs)
    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return target()(*args, **kwargs)

    setattr(wrapper, "__original_function", function)  # noqa: B010 - promptflow reads this name
    return wrapper


# -- metrics ---------------------------------------------------------------------------------------

_metrics: ContextVar[dict[str, Any] | None] = ContextVar("phi3_flow_metrics", default=None)
_active: list[dict[str, Any]] = []  # metrics of the aggregations that are running
_lock = threading.Lock()


def log_metric(key: str, value: Any, variant_id: str | None = None) -> None:
    """Log a metric of the run. Outside an aggregation node it has no effect.

    Args:
        key: name of the metric.
        value: its value, usually a number.
        variant_id: variant that the metric is about; only promptflow's engine records it.
    """
    metrics = _metrics.get()
    if metrics is None and len(_active) == 1:  # a thread that the node has started
        metrics = _active[0]
    if metrics is not None:
        metrics[key] = value


def is_collecting() -> bool:
    """Return whether this context runs an aggregation."""
    return _metrics.get() is not None


@contextmanager
def collect_metrics() -> Iterator[dict[str, Any]]:
    """Yield a dict that gets the metrics logged in this context, by promptflow's `log_metric` as well."""
    metrics: dict[str, Any] = {}
    token = _metrics.set(metrics)
    with _lock:
        _active.append(metrics)
        stock = sys.modules.get("promptflow._core.metric_logger")
        if stock:
            stock.add_metric_logger(log_metric)  # without effect if it is added already
    try:
        yield metrics
    finally:
        _metrics.reset(token)
        with _lock:
            _active[:] = [each for each in _active if each is not metrics]
