"""What the engine returns: the result of a line, of its nodes, and of an aggregation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import LineError

COMPLETED, FAILED, SKIPPED = "Completed", "Failed", "Bypassed"  # promptflow's words


@dataclass
class NodeRun:
    """One run of a node.

    Attributes:
        node: name of the node.
        status: `COMPLETED`, `FAILED` or `SKIPPED`.
        inputs: the arguments of the tool.
        output: what the tool returned; None if it failed or was skipped.
        error: why it failed, or None.
        started: seconds since the epoch.
        seconds: how long it ran.
    """

    node: str
    status: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    output: Any = None
    error: LineError | None = None
    started: float = 0.0
    seconds: float = 0.0


@dataclass
class LineResult:
    """The result of one line. A failed line has an error and no outputs.

    Attributes:
        inputs: the flow's inputs, with defaults and converted.
        outputs: output name -> value.
        node_runs: node name -> its run, of all nodes that started or were skipped.
        aggregation_inputs: reference such as `${score.output}` -> its value, for the aggregation nodes.
        error: why the line failed, or None.
        started: seconds since the epoch.
        seconds: how long the line ran.
    """

    inputs: dict[str, Any]
    outputs: dict[str, Any] = field(default_factory=dict)
    node_runs: dict[str, NodeRun] = field(default_factory=dict)
    aggregation_inputs: dict[str, Any] = field(default_factory=dict)
    error: LineError | None = None
    started: float = 0.0
    seconds: float = 0.0

    @property
    def node_outputs(self) -> dict[str, Any]:
        """Node name -> output, of the nodes that completed."""
        runs = self.node_runs.values()
        return {run.node: run.output for run in runs if run.status == COMPLETED}

    @property
    def skipped(self) -> list[str]:
        """Names of the nodes that their `activate` condition, or their skipped inputs, left out."""
        return [run.node for run in self.node_runs.values() if run.status == SKIPPED]


@dataclass
class AggregationResult:
    """The result of the aggregation nodes over all lines that completed.

    Attributes:
        outputs: node name -> output.
        metrics: the metrics that the nodes logged, also before a failure.
        node_runs: node name -> its run.
        error: why a node failed, or None.
    """

    outputs: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    node_runs: dict[str, NodeRun] = field(default_factory=dict)
    error: LineError | None = None
