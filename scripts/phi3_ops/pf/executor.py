"""Run single lines of a flow with Prompt flow's own executor, as the reference of recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from phi3_tools.flow import LineError

from ..errors import OpsError, first_line
from .client import prepare
from .expectations import LINE_NUMBER, installed_version

T = TypeVar("T")


@dataclass(frozen=True)
class ExecutedLine:
    """The outcome of a line.

    Attributes:
        outputs: output name -> value, or None if the line failed.
        error: Prompt flow's error codes, the outermost first, or None.
        streamed: name and text of the output that streamed, or None.
        result: Prompt flow's `LineResult`.
    """

    outputs: dict[str, Any] | None
    error: list[str] | None = None
    streamed: list[str] | None = None
    result: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class ExecutedAggregation:
    """The outcome of an aggregation.

    Attributes:
        metrics: the metrics, also those before a failure.
        error: Prompt flow's error codes of the first node that failed, or None.
    """

    metrics: dict[str, Any]
    error: list[str] | None = None


class PromptflowExecutor:
    """Prompt flow's executor with one flow.

    Args:
        folder: the flow.
        connections: returns the connection of a name, with `configs` and `secrets`.

    Raises:
        OpsError: Prompt flow refuses the flow.
    """

    def __init__(self, folder: Path, connections: Callable[[str], Any]) -> None:
        prepare()
        # In the main thread, Prompt flow replaces the handlers of SIGINT and SIGTERM.
        self._thread = ThreadPoolExecutor(1)
        self._streaming = False
        self._executor = self._in_thread(lambda: self._create(folder, connections))

    @property
    def version(self) -> str:
        """The version of Prompt flow."""
        return installed_version("promptflow-core")

    def run(self, inputs: Mapping[str, Any]) -> ExecutedLine:
        """Run a line, and return its complete answer."""
        return self._in_thread(lambda: self._run(inputs, streaming=False))

    def stream(self, inputs: Mapping[str, Any]) -> ExecutedLine:
        """Run a line with streaming switched on, and read the output that streams."""
        return self._in_thread(lambda: self._run(inputs, streaming=True))

    def aggregate(self, lines: list[tuple[Mapping[str, Any], ExecutedLine]]) -> ExecutedAggregation:
        """Run the aggregation over the lines that completed, as in a batch."""
        if not self._executor.has_aggregation_node:
            return ExecutedAggregation({})
        return self._in_thread(lambda: self._aggregate(lines))

    def _in_thread(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def _create(self, folder: Path, connections: Callable[[str], Any]) -> Any:
        from promptflow.connections import CustomConnection
        from promptflow.executor import FlowExecutor

        class Provider:
            def get(self, name: str) -> Any:
                found = connections(name)
                fields = {"configs": dict(found.configs), "secrets": dict(found.secrets)}
                return CustomConnection(name=name, **fields)

        try:
            executor = FlowExecutor.create(
                folder.resolve() / "flow.dag.yaml",
                Provider(),
                raise_ex=False,
                env_exporter_setup=False,
            )
        except Exception as error:  # whatever Prompt flow, or the flow's own code, raises
            raise OpsError(f"{folder} cannot run: {first_line(error)}") from error
        executor.enable_streaming_for_llm_flow(lambda: self._streaming)
        return executor

    def _run(self, inputs: Mapping[str, Any], *, streaming: bool) -> ExecutedLine:
        self._streaming = streaming
        result = self._executor.exec_line(dict(inputs), index=0, allow_generator_output=streaming)
        if result.run_info.error:
            return ExecutedLine(None, _codes(result.run_info.error))
        outputs = {name: value for name, value in result.output.items() if name != LINE_NUMBER}
        streamed = None
        for name, value in outputs.items():
            if isinstance(value, Iterator):
                try:
                    outputs[name] = "".join(str(piece) for piece in value)
                except Exception as error:  # whatever the flow's own code raises
                    return ExecutedLine(None, list(LineError.of_system(error).codes))
                streamed = [name, outputs[name]]
        return ExecutedLine(outputs, streamed=streamed, result=result)

    def _aggregate(
        self, lines: list[tuple[Mapping[str, Any], ExecutedLine]]
    ) -> ExecutedAggregation:
        from promptflow._utils.execution_utils import apply_default_value_for_input
        from promptflow.executor.flow_validator import FlowValidator

        executor = self._executor
        flow = executor._flow
        completed = [(inputs, line) for inputs, line in lines if line.error is None]
        values = [
            FlowValidator.ensure_flow_inputs_type(
                flow, apply_default_value_for_input(flow.inputs, inputs)
            )
            for inputs, _ in completed
        ]
        result = executor.exec_aggregation(
            {name: [value[name] for value in values] for name in flow.inputs},
            {
                key: [line.result.aggregation_inputs[key] for _, line in completed]
                for key in executor._aggregation_inputs_references
            },
        )
        errors = [run.error for run in result.node_run_infos.values() if run.error]
        return ExecutedAggregation(dict(result.metrics), _codes(errors[0]) if errors else None)


def _codes(error: Mapping[str, Any]) -> list[str]:
    codes, inner = [], dict(error)
    while inner:
        codes.append(str(inner["code"]))
        inner = dict(inner.get("innerError") or {})
    return codes
