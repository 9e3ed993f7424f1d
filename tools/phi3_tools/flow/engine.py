"""Runs the lines of a flow: complete answers or streams, sync or async, and the aggregation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from ..client import CallGroup
from ..connections import require_connection
from .decorators import collect_metrics
from .environment import set_environment
from .errors import LineError, image_input, invalid_input, missing_input
from .model import Flow
from .references import Literal, NodeReference, output_of, value_of
from .results import AggregationResult, LineResult
from .runner import Runner
from .schedule import Graph, Schedule
from .spans import flow_span
from .streams import AsyncLineStream, LineStream
from .tools import Tool, load_tools
from .values import contains_image, convert

MAX_THREADS = (
    256  # lines at once in `arun`, and nodes at once that run beside another node of their line
)


class Engine:
    """Runs one flow. Safe to use from many threads, with many lines at once.

    Nodes run as soon as their inputs are ready: functions in threads, coroutines in an event loop. A
    node that is ready alone runs in the thread of its line.

    Args:
        flow: the flow.
        connections: returns the connection of a name, or a mapping of names to connections; by default
            `phi3_tools.connections.require_connection`.
        max_threads: lines at once in `arun`, and nodes at once that run beside another node.

    Raises:
        FlowError: a tool cannot be loaded, or a literal input is wrong.

    Example:
        >>> engine = Engine(load_flow("flows/qa"), {"phi3": connection})
        >>> engine.run({"input_data": "Who founded Microsoft?"}).outputs
    """

    def __init__(
        self,
        flow: Flow,
        connections: Callable[[str], Any] | Mapping[str, Any] | None = None,
        *,
        max_threads: int = MAX_THREADS,
    ) -> None:
        self.flow = flow
        lookup = require_connection if connections is None else connections
        if isinstance(lookup, Mapping):
            lookup = lookup.__getitem__
        set_environment(flow, lookup)
        tools = load_tools(flow, lookup)
        self._graph = Graph([tool for tool in tools if not tool.node.aggregation])
        self._aggregation_tools = [tool for tool in tools if tool.node.aggregation]
        self._references = _aggregated_references(self._aggregation_tools, self._graph)
        self._runner = Runner(max_threads)
        streaming = set(flow.streaming_nodes)
        self._streaming_graph = Graph(
            [
                _streaming(tool) if tool.node.name in streaming else tool
                for tool in self._graph.tools
            ]
        )
        self._is_async = any(tool.is_async for tool in tools)

    @property
    def has_aggregation(self) -> bool:
        """Whether the flow has aggregation nodes."""
        return bool(self._aggregation_tools)

    def run(self, inputs: Mapping[str, Any]) -> LineResult:
        """Run one line and return its result; a failure is in `LineResult.error`.

        Args:
            inputs: input name -> value; other names are ignored.
        """
        if self._is_async:
            return self._runner.in_loop(self._arun(inputs, self._graph, CallGroup(), joins=True))
        return self._run(inputs, self._graph, CallGroup(), joins=True)

    async def arun(self, inputs: Mapping[str, Any]) -> LineResult:
        """Run one line without blocking the event loop.

        Cancelling the task stops the line: no further node starts, and the calls of running nodes to a
        Phi-3 endpoint are ended and their connections closed.
        """
        return await self._arun_line(inputs, self._graph, CallGroup(), joins=True)

    def stream(self, inputs: Mapping[str, Any]) -> LineStream:
        """Run one line and return the output that streams in pieces; the other outputs are complete.

        A node streams if its tool returns a generator, or can (`streaming_option_parameter`), and only
        an output of the flow uses it. Close the stream if you leave it early.
        """
        graph, calls = self._streaming_graph, CallGroup()
        if self._is_async:
            result = self._runner.in_loop(self._arun(inputs, graph, calls, joins=False))
        else:
            result = self._run(inputs, graph, calls, joins=False)
        return LineStream(result, self._runner, calls)

    async def astream(self, inputs: Mapping[str, Any]) -> AsyncLineStream:
        """Run one line as `stream` does, without blocking the event loop."""
        calls = CallGroup()
        result = await self._arun_line(inputs, self._streaming_graph, calls, joins=False)
        return AsyncLineStream(result, self._runner, calls)

    def aggregate(self, lines: Sequence[LineResult]) -> AggregationResult:
        """Run the aggregation nodes over the lines that completed."""
        completed = [line for line in lines if line.error is None]
        inputs = {name: [line.inputs[name] for line in completed] for name in self.flow.inputs}
        values = {
            str(reference): [line.aggregation_inputs[str(reference)] for line in completed]
            for reference in self._references
        }
        graph = Graph([_with_values(tool, values) for tool in self._aggregation_tools])
        schedule, calls = Schedule(graph, inputs), CallGroup()
        result = AggregationResult(node_runs=schedule.runs)
        runner = self._runner
        with collect_metrics() as result.metrics:
            try:
                with flow_span("aggregation", self.flow.name):
                    if self._is_async:
                        runner.in_loop(runner.arun_nodes(schedule, calls, finishes_others=True))
                    else:
                        runner.run_nodes(schedule, calls, finishes_others=True)
            except Exception as error:
                result.error = _as_line_error(error)
            else:
                result.outputs = dict(schedule.outputs)
        return result

    def close(self) -> None:
        """End the engine's threads; nodes that run are not interrupted."""
        self._runner.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- one line ----------------------------------------------------------------------------------

    def _run(
        self, inputs: Mapping[str, Any], graph: Graph, calls: CallGroup, *, joins: bool
    ) -> LineResult:
        result = LineResult(dict(inputs), started=time.time())
        start = time.perf_counter()
        try:
            result.inputs = self._line_inputs(inputs)
            schedule = Schedule(graph, result.inputs)
            result.node_runs = schedule.runs
            with flow_span("flow", self.flow.name):
                self._runner.run_nodes(schedule, calls)
            outputs = self._outputs(schedule, result.inputs)
            if joins:
                outputs = {name: _joined(value) for name, value in outputs.items()}
            self._finish(result, outputs, schedule)
        except Exception as error:
            result.error = _as_line_error(error)
        result.seconds = time.perf_counter() - start
        return result

    async def _arun_line(
        self, inputs: Mapping[str, Any], graph: Graph, calls: CallGroup, *, joins: bool
    ) -> LineResult:
        if self._is_async:
            return await self._arun(inputs, graph, calls, joins=joins)
        try:
            return await self._runner.in_line_thread(
                lambda: self._run(inputs, graph, calls, joins=joins)
            )
        except asyncio.CancelledError:
            calls.cancel()
            raise

    async def _arun(
        self, inputs: Mapping[str, Any], graph: Graph, calls: CallGroup, *, joins: bool
    ) -> LineResult:
        result = LineResult(dict(inputs), started=time.time())
        start = time.perf_counter()
        try:
            result.inputs = self._line_inputs(inputs)
            schedule = Schedule(graph, result.inputs)
            result.node_runs = schedule.runs
            with flow_span("flow", self.flow.name):
                await self._runner.arun_nodes(schedule, calls)
            outputs = self._outputs(schedule, result.inputs)
            if joins:
                outputs = {name: await self._ajoined(value) for name, value in outputs.items()}
            self._finish(result, outputs, schedule)
        except Exception as error:
            result.error = _as_line_error(error)
        result.seconds = time.perf_counter() - start
        return result

    def _finish(self, result: LineResult, outputs: dict[str, Any], schedule: Schedule) -> None:
        result.aggregation_inputs = {
            str(each): value_of(each, {}, schedule.outputs) for each in self._references
        }
        result.outputs = outputs

    def _line_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs of a line with defaults, converted to their types."""
        values = dict(inputs)
        for name, item in self.flow.inputs.items():
            if name not in values:
                if item.default is None:
                    raise missing_input(name)
                values[name] = deepcopy(item.default)  # a tool may change its list
        for name, item in self.flow.inputs.items():
            try:
                values[name] = convert(values[name], item.type)
            except Exception as error:
                raise invalid_input(name, values[name], item.type, error) from error
            if contains_image(values[name]):
                raise image_input(name)
        return values

    def _outputs(self, schedule: Schedule, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: output_of(output.reference, inputs, schedule.outputs)
            for name, output in self.flow.outputs.items()
        }

    async def _ajoined(self, value: Any) -> Any:
        if isinstance(value, AsyncIterator):
            try:
                return "".join([str(piece) async for piece in value])
            except Exception as error:
                raise LineError.of_system(error) from error
        if isinstance(value, Iterator):
            return await self._runner.in_line_thread(lambda: _joined(value))
        return value


def _as_line_error(error: Exception) -> LineError:
    """Return the failure of a line; an error outside its nodes may come from a value's own `==`."""
    return error if isinstance(error, LineError) else LineError.of_system(error)


def _joined(value: Any) -> Any:
    """Return the text of a generator; other values as they are."""
    if not isinstance(value, Iterator):
        return value
    try:
        return "".join(str(piece) for piece in value)
    except Exception as error:
        raise LineError.of_system(error) from error


def _streaming(tool: Tool) -> Tool:
    if tool.streaming_option is None:
        return tool
    return replace(tool, inputs={**tool.inputs, tool.streaming_option: Literal(True)})


def _aggregated_references(tools: Sequence[Tool], lines: Graph) -> list[NodeReference]:
    """Return the references of aggregation nodes to nodes that run for each line."""
    references = {
        str(each): each
        for tool in tools
        for each in tool.inputs.values()
        if isinstance(each, NodeReference) and each.node in lines.by_name
    }
    return list(references.values())


def _with_values(tool: Tool, values: Mapping[str, list[Any]]) -> Tool:
    """Return an aggregation tool whose references to nodes of the lines are lists of their values."""
    inputs = {
        name: Literal(values[str(each)], is_computed=True) if str(each) in values else each
        for name, each in tool.inputs.items()
    }
    return replace(tool, inputs=inputs)
