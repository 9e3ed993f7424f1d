"""Flows without promptflow: reads a flow.dag.yaml, runs its nodes, aggregates.

Flows import `tool`, `log_metric` and `trace` from here. They are promptflow's where promptflow is
installed, and this package's elsewhere and in this package's engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..connections import Connection as CustomConnection
from .asgi import ScoreApp, build_info
from .decorators import collect_metrics
from .decorators import tool as package_tool
from .decorators import trace as package_trace
from .definition import load_flow, resolve_variants
from .engine import Engine
from .environment import connection_reference, environment_texts
from .errors import FlowError, LineError, NodeError
from .flow_files import current_flow_folder, read_flow_file
from .imports import REPLACED_NAMES, is_replaced_import
from .line import SKIPPED, Line, connection, prompt_tool, run_sync
from .model import PACKAGE, PROMPT, Flow, FlowInput, Node
from .parameters import convert_literals, parameters_of
from .references import Assignment, InputReference, Literal, NodeReference
from .restore import override_inputs, restore_line
from .results import AggregationResult, LineResult, NodeRun
from .shim import PromptTemplate, tool_exception, traced_as_llm
from .swagger import swagger
from .tools import Tool, load_tools
from .values import convert

if TYPE_CHECKING:
    from .decorators import ToolProvider, log_metric, tool, trace
else:
    from .shim import shared_name as __getattr__  # noqa: F401 - the names above

__all__ = [
    "AggregationResult",
    "Assignment",
    "CustomConnection",
    "Engine",
    "Flow",
    "FlowError",
    "FlowInput",
    "InputReference",
    "Line",
    "LineError",
    "LineResult",
    "Literal",
    "Node",
    "NodeError",
    "NodeReference",
    "NodeRun",
    "PACKAGE",
    "PROMPT",
    "REPLACED_NAMES",
    "PromptTemplate",
    "ScoreApp",
    "SKIPPED",
    "Tool",
    "ToolProvider",
    "build_info",
    "collect_metrics",
    "connection",
    "connection_reference",
    "convert",
    "convert_literals",
    "current_flow_folder",
    "environment_texts",
    "is_replaced_import",
    "load_flow",
    "load_tools",
    "log_metric",
    "override_inputs",
    "parameters_of",
    "package_tool",
    "package_trace",
    "prompt_tool",
    "read_flow_file",
    "resolve_variants",
    "restore_line",
    "run_sync",
    "swagger",
    "tool",
    "tool_exception",
    "trace",
    "traced_as_llm",
]
