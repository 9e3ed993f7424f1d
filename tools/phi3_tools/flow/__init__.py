"""Flows without promptflow: reads a flow.dag.yaml, runs its nodes, aggregates.

Flows import `tool`, `log_metric` and `trace` from here. They are promptflow's where promptflow is
installed, and this package's elsewhere and in this package's engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..connections import Connection as CustomConnection
from .decorators import tool as package_tool
from .definition import load_flow
from .engine import Engine
from .errors import FlowError, LineError, NodeError
from .model import Flow, Node
from .restore import override_inputs, restore_line
from .results import AggregationResult, LineResult, NodeRun
from .shim import PromptTemplate, tool_exception

if TYPE_CHECKING:
    from .decorators import log_metric, tool, trace
else:
    from .shim import shared_name as __getattr__  # noqa: F401 - `tool`, `log_metric`, `trace`

__all__ = [
    "AggregationResult",
    "CustomConnection",
    "Engine",
    "Flow",
    "FlowError",
    "LineError",
    "LineResult",
    "Node",
    "NodeError",
    "NodeRun",
    "PromptTemplate",
    "load_flow",
    "log_metric",
    "package_tool",
    "tool",
    "tool_exception",
    "trace",
]
