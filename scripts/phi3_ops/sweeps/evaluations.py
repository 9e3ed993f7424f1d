"""The flows that score the answers of a sweep, and the scores that it compares."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..comparison import Thresholds, load_thresholds
from ..errors import OpsError
from ..flows import FlowDefinition, content_hash
from ..hashing import parts_sha256
from ..names import did_you_mean
from ..pf import Connections, require_connection
from ..runs import SHORT_HASH, THRESHOLDS_FILE, RunProperties
from .cell_flows import connections_of, load_checked_flow, load_checked_tools
from .config import EvaluationConfig, SweepConfig

NUMBERS = ("double", "int", "bool")  # types of outputs that are scores


@dataclass(frozen=True)
class Evaluation:
    """A flow that scores answers.

    Attributes:
        definition: the flow.
        flow_sha256: hash of its content.
        columns: input of the flow -> its source, as far as the sweep's file sets it.
        connections: node -> input -> connection of a judge.
        endpoints: node -> what its connection leads to.
        calls_per_line: number of nodes that call an endpoint for each line.
        metrics: its outputs that are numbers.
    """

    definition: FlowDefinition
    flow_sha256: str
    columns: Mapping[str, str]
    connections: Connections
    endpoints: Mapping[str, Any]
    calls_per_line: int
    metrics: Sequence[str]

    @classmethod
    def load(cls, where: str, config: EvaluationConfig) -> Evaluation:
        """Load an evaluation flow.

        Args:
            where: the field of the sweep's file, for errors.
            config: the evaluation.

        Raises:
            OpsError: the flow or its connection does not exist, or it cannot run.
        """
        definition = FlowDefinition.read(Path(config.flow))
        if config.connection:
            require_connection(config.connection)
        flow = load_checked_flow(where, definition.folder)
        load_checked_tools(where, flow, config.connection)
        connections = connections_of(flow, config.connection)
        endpoints = RunProperties.of_flow(definition.folder, connections).endpoints or {}
        return cls(
            definition,
            content_hash(definition.folder),
            config.columns,
            connections,
            {node: endpoint.to_json() for node, endpoint in endpoints.items()},
            sum("connection" in node.inputs for node in flow.line_nodes),
            [name for name, output in flow.outputs.items() if output.type in NUMBERS],
        )

    def title(self, asked: str) -> str:
        """Return the display name of the run that scores the answers of a run."""
        settings = json.dumps([self.columns, self.connections, self.endpoints], sort_keys=True)
        digest = parts_sha256([self.flow_sha256.encode(), settings.encode()])[:SHORT_HASH]
        return f"{asked}-{self.definition.folder.resolve().name}-{digest}"

    @property
    def thresholds(self) -> Thresholds:
        """The directions and ranges of its scores."""
        file = self.definition.folder / THRESHOLDS_FILE
        return load_thresholds(file if file.is_file() else None)


def load_evaluations(
    config: SweepConfig, data_columns: Collection[str], answers: Mapping[str, Collection[str]]
) -> list[Evaluation]:
    """Return the evaluations of a sweep.

    Args:
        config: the sweep.
        data_columns: the columns of the data file.
        answers: prompt -> outputs of its flow.

    Raises:
        OpsError: a flow or a connection does not exist, an input has no source, or a metric does not
            exist or has no direction.
    """
    evaluations = [
        Evaluation.load(f"evaluate.{number}", item) for number, item in enumerate(config.evaluate)
    ]
    for number, evaluation in enumerate(evaluations):
        for prompt, outputs in answers.items():
            try:
                evaluation.definition.columns(evaluation.columns, data_columns, outputs)
            except OpsError as error:
                fix = f"Set it in `evaluate.{number}.columns`; the prompt {prompt} has the outputs "
                raise OpsError(error.what, f"{fix}{', '.join(outputs)}.") from error
    _check_metrics(config.metrics, evaluations)
    return evaluations


def merged_thresholds(evaluations: Sequence[Evaluation]) -> Thresholds:
    """Return the thresholds of several evaluations; the first one that has a score describes it."""
    files = [evaluation.thresholds for evaluation in evaluations]
    metrics = {name: metric for file in reversed(files) for name, metric in file.metrics.items()}
    return files[0].model_copy(update={"metrics": metrics})


def _check_metrics(metrics: Sequence[str], evaluations: Sequence[Evaluation]) -> None:
    known = list(dict.fromkeys(name for each in evaluations for name in each.metrics))
    for name in metrics:
        if name not in known:
            fix = f"The scores are {', '.join(known) or 'none'}{did_you_mean(name, known)}"
            raise OpsError(f"metrics: no evaluation has the score {name!r}", fix)
    thresholds = merged_thresholds(evaluations)
    for name in metrics:
        if thresholds.metric(name).higher_is_better is None:
            what = f"metrics: {name!r} is neither better nor worse"
            raise OpsError(what, "Compare scores whose direction is known.")
