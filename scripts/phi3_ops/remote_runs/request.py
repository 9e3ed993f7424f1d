"""What a batch on Azure runs, and how it is spread over a cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..flows import FlowDefinition
from ..pf import Connections
from ..runs import DEFAULT_IN_FLIGHT

LINE_TIMEOUT_S = 600  # the time that Prompt flow's own engine gives a line
MAX_TIMEOUT_S = 259200  # Azure's maximum for a mini-batch
MAX_PROCESSES = 4  # on a node; further lines in flight are threads of these processes


@dataclass(frozen=True)
class BatchRequest:
    """What to run.

    Attributes:
        flow: the flow.
        data: the data file, JSONL, one row per line.
        columns: flow input -> `${data.x}` or a constant.
        title: display name of the batch.
        connections: node -> input -> connection of the workspace that replaces the flow's.
        in_flight: number of lines that run at once.
    """

    flow: FlowDefinition
    data: Path
    columns: Mapping[str, str]
    title: str
    connections: Connections = field(default_factory=dict)
    in_flight: int = DEFAULT_IN_FLIGHT

    @property
    def connection_names(self) -> dict[str, str]:
        """Node -> name of its connection in the workspace."""
        return self.flow.connection_names(self.connections)

    def inputs_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the flow's inputs for one row of the data file."""
        prefix = "${data."
        return {
            name: row.get(source[len(prefix) : -1]) if source.startswith(prefix) else source
            for name, source in self.columns.items()
        }


@dataclass(frozen=True)
class ClusterRequest(BatchRequest):
    """What to run on a cluster; `in_flight` is the number of lines on all nodes together.

    Attributes:
        compute: name of the cluster; None stands for the configuration's.
        instances: number of nodes.
        mini_batch_size: number of lines that one process gets at once, and that are retried together.
        retries: number of times that a failed mini-batch is run again.
    """

    compute: str | None = None
    instances: int = 1
    mini_batch_size: int = 10
    retries: int = 3

    @property
    def processes(self) -> int:
        """Number of processes on a node, at most `MAX_PROCESSES`; each has the same number of threads."""
        choices = range(1, MAX_PROCESSES + 1)
        return max(count for count in choices if self._in_flight_per_node % count == 0)

    @property
    def threads(self) -> int:
        """Number of lines that one process runs at once."""
        return self._in_flight_per_node // self.processes

    @property
    def _in_flight_per_node(self) -> int:
        return math.ceil(self.in_flight / self.instances)

    def settings(self) -> dict[str, Any]:
        """Return the run settings of the parallel step.

        A mini-batch is one file. The error thresholds are 0; Azure's own default ignores all failures.
        """
        return {
            "instance_count": self.instances,
            "max_concurrency_per_instance": self.processes,
            "mini_batch_size": "1",
            "retry_settings": {
                "max_retries": self.retries,
                "timeout": min(self.mini_batch_size * LINE_TIMEOUT_S, MAX_TIMEOUT_S),
            },
            "error_threshold": 0,
            "mini_batch_error_threshold": 0,
        }
