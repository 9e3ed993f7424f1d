"""The names that users' flows import: promptflow's where it is installed, ours elsewhere.

The engine gives flows its own names in any case, because promptflow takes seconds to import. A flow that
runs in promptflow's engine gets promptflow's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from . import decorators

NAMES = ("tool", "log_metric", "trace")
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
    """Return `tool`, `log_metric` or `trace`.

    Raises:
        AttributeError: it is another name.
    """
    if name not in NAMES:
        raise AttributeError(name)
    if not _loading.get():
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


def promptflow_is_loaded() -> bool:
    """Return whether this process has imported promptflow."""
    return "promptflow.exceptions" in sys.modules
