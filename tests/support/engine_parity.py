"""One flow in promptflow's own executor and in ours: the outcomes are equal."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi3_tools.client import CallGroup
from phi3_tools.flow import Engine, FlowError, LineError, load_flow
from phi3_tools.flow.schedule import Schedule

ENDED = ("Completed", "Bypassed")  # other nodes may still run when a line has failed


@dataclass
class Outcome:
    """What can be compared of the lines of a flow.

    Attributes:
        refused: class name of the exception, if the flow cannot be loaded.
        lines: for each line its outputs, or the error codes and the class of the tool's exception.
        nodes: for each line that did not fail: node -> status.
        possible: for each line the errors of all nodes that may be the first to fail; ours only.
        aggregated: node -> output, or error codes.
        metrics: the logged metrics.
    """

    refused: str | None = None
    lines: list[Any] = field(default_factory=list)
    nodes: list[dict[str, str]] = field(default_factory=list)
    possible: list[list[Any]] = field(default_factory=list, compare=False)
    aggregated: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


def write_flow(folder: Path, definition: str | Mapping[str, Any], **files: str) -> Path:
    """Write a flow: the YAML, and files whose names have `__` for the dot: `score__py`."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(definition, Mapping):
        definition = json.dumps(definition)
    (folder / "flow.dag.yaml").write_text(textwrap.dedent(definition), encoding="utf-8")
    for name, text in files.items():
        path = folder / ".".join(name.rsplit("__", 1))
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def assert_parity(
    flow: Path,
    lines: Sequence[Mapping[str, Any]],
    connections: Callable[[str], Any] | None = None,
    variant: str | None = None,
) -> Outcome:
    """Run the lines in both engines, compare, and return our outcome."""
    theirs = outcome_of_promptflow(flow, lines, connections, variant)
    ours = outcome_of_ours(flow, lines, connections, variant)
    for index, possible in enumerate(ours.possible):
        if len(possible) > 1 and ours.lines[index] in possible and theirs.lines[index] in possible:
            ours.lines[index] = theirs.lines[index]
    if any(_is_error(output) for output in ours.aggregated.values()):
        # promptflow does not wait for the other nodes.
        ended = {name for name, output in theirs.aggregated.items() if output is not None}
        common = ended & set(ours.aggregated)
        for outcome in (ours, theirs):
            outcome.aggregated = {name: outcome.aggregated[name] for name in common}
            outcome.metrics = {}
    assert ours == theirs, f"\nours   {ours}\ntheirs {theirs}"
    return ours


def outcome_of_ours(
    flow: Path,
    lines: Sequence[Mapping[str, Any]],
    connections: Callable[[str], Any] | None = None,
    variant: str | None = None,
) -> Outcome:
    try:
        engine = Engine(load_flow(flow, variant), connections)
    except FlowError as error:
        assert "\n" not in str(error)
        return Outcome(refused=error.code)
    outcome = Outcome()
    with engine:
        results = [engine.run(line) for line in lines]
        for line, result in zip(lines, results):
            outcome.possible.append(_possible_errors(engine, line) if result.error else [])
            if result.error:
                outcome.lines.append(_codes(result.error))
                outcome.nodes.append({})
            else:
                outcome.lines.append(result.outputs)
                outcome.nodes.append({n: run.status for n, run in result.node_runs.items()})
        if engine.has_aggregation:
            aggregation = engine.aggregate(results)
            outcome.metrics = aggregation.metrics
            for name, run in aggregation.node_runs.items():
                outcome.aggregated[name] = list(run.error.codes) if run.error else run.output
    return outcome


def _is_error(output: Any) -> bool:
    return isinstance(output, list) and output[:1] in (["UserError"], ["SystemError"])


def _codes(error: LineError) -> list[Any]:
    cause = error.cause if "ToolExecutionError" in error.codes else None
    return [*error.codes, cause and type(cause).__name__]


def _possible_errors(engine: Engine, line: Mapping[str, Any]) -> list[Any]:
    """Return the errors of all nodes that do not need a node that failed."""
    errors = []
    try:
        schedule = Schedule(engine._graph, engine._line_inputs(line))
        ready = schedule.start()
    except LineError as error:
        return [_codes(error)]
    while ready:
        tool = ready.pop()
        try:
            run = engine._runner._arun_node(schedule, tool, CallGroup())
            ready += schedule.complete(tool, asyncio.run(run))
        except LineError as error:
            errors.append(_codes(error))
        except Exception as error:
            errors.append(["SystemError", type(error).__name__, None])
    return errors


def outcome_of_promptflow(
    flow: Path,
    lines: Sequence[Mapping[str, Any]],
    connections: Callable[[str], Any] | None = None,
    variant: str | None = None,
) -> Outcome:
    # In a thread: in the main thread promptflow replaces the handlers of SIGINT and SIGTERM.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_promptflow, flow, lines, connections, variant).result()


def _promptflow(
    flow: Path,
    lines: Sequence[Mapping[str, Any]],
    connections: Callable[[str], Any] | None,
    variant: str | None,
) -> Outcome:
    from promptflow.executor import FlowExecutor

    class Connections:
        def get(self, name: str) -> Any:
            assert connections
            return connections(name)

    try:
        executor = FlowExecutor.create(
            _with_variant(flow, variant), Connections(), raise_ex=False, env_exporter_setup=False
        )
    except Exception as error:
        return Outcome(refused=type(error).__name__)
    outcome = Outcome()
    results = [executor.exec_line(line, index=index) for index, line in enumerate(lines)]
    for result in results:
        if result.run_info.error:
            outcome.lines.append(_error(result.run_info.error))
            outcome.nodes.append({})
        else:
            outputs = {k: v for k, v in result.output.items() if k != "line_number"}
            outcome.lines.append(outputs)
            outcome.nodes.append(
                {name: run.status.value for name, run in result.node_run_infos.items()}
            )
    if executor.has_aggregation_node:
        _aggregate(executor, lines, results, outcome)
    return outcome


def _aggregate(executor: Any, lines: Any, results: Any, outcome: Outcome) -> None:
    """Aggregate as promptflow's BatchEngine does."""
    from promptflow._utils.execution_utils import apply_default_value_for_input
    from promptflow.executor.flow_validator import FlowValidator

    flow = executor._flow
    completed = [i for i, result in enumerate(results) if result.run_info.error is None]
    inputs = [
        FlowValidator.ensure_flow_inputs_type(
            flow, apply_default_value_for_input(flow.inputs, lines[i])
        )
        for i in completed
    ]
    references = executor._aggregation_inputs_references
    result = executor.exec_aggregation(
        {name: [line[name] for line in inputs] for name in flow.inputs},
        {key: [results[i].aggregation_inputs[key] for i in completed] for key in references},
    )
    outcome.metrics = result.metrics
    for name, run in result.node_run_infos.items():
        outcome.aggregated[name] = _error(run.error)[:-1] if run.error else run.output


def _error(error: Mapping[str, Any]) -> list[Any]:
    codes, inner = [], dict(error)
    while inner:
        codes.append(inner["code"])
        inner = inner.get("innerError") or {}
    infos = [item["info"] for item in error.get("additionalInfo") or []]
    return [*codes, infos[0].get("type") if infos else None]


def _with_variant(flow: Path, variant: str | None) -> Path:
    """Return the flow's file; promptflow's SDK chooses a variant by rewriting it."""
    file = flow / "flow.dag.yaml"
    if variant is None:
        return file
    from promptflow._sdk._orchestrator.utils import overwrite_variant
    from promptflow._utils.yaml_utils import dump_yaml, load_yaml

    content = load_yaml(file)
    overwrite_variant(content, *variant.split("."))
    copy = flow / f"{variant}.yaml"
    with copy.open("w", encoding="utf-8") as stream:
        dump_yaml(content, stream)
    return copy


def streamed_by_promptflow(
    flow: Path, line: Mapping[str, Any], connections: Callable[[str], Any]
) -> list[str]:
    """Return the pieces of the flow's output `answer`, streamed as `pf flow serve` streams it."""
    from promptflow.executor import FlowExecutor

    class Connections:
        def get(self, name: str) -> Any:
            return connections(name)

    def run() -> list[str]:
        executor = FlowExecutor.create(
            flow / "flow.dag.yaml", Connections(), env_exporter_setup=False
        )
        executor.enable_streaming_for_llm_flow(lambda: True)
        result = executor.exec_line(line, allow_generator_output=True)
        return list(result.output["answer"])

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()
