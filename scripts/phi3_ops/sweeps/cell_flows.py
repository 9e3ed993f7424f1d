"""The flows of the cells: copies of a flow with one variant, another prompt file, or other inputs."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi3_tools.flow import (
    PROMPT,
    Flow,
    FlowError,
    Tool,
    convert,
    load_flow,
    load_tools,
    override_inputs,
    resolve_variants,
)

from ..errors import OpsError
from ..flows import FlowDefinition, copy_flow, read_dag_file, write_dag_file
from ..names import did_you_mean
from ..pf import require_connection
from .config import PromptConfig, Value, value_text

DAG_FILE = "flow.dag.yaml"
CONNECTION = "connection"  # input of the nodes that call an endpoint


@dataclass(frozen=True)
class FlowSettings:
    """The values that a cell sets in its flow.

    Attributes:
        flow_inputs: input of the flow -> value.
        node_inputs: node -> input -> value.
    """

    flow_inputs: dict[str, Value] = field(default_factory=dict)
    node_inputs: dict[str, dict[str, Value]] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptFlow:
    """The flow of a prompt, with its tools, so that parameters can be looked up.

    Attributes:
        name: name of the prompt.
        config: the prompt.
        definition: the flow.
        flow: the flow with the prompt's variant.
        tools: node -> its tool.
    """

    name: str
    config: PromptConfig
    definition: FlowDefinition
    flow: Flow
    tools: Mapping[str, Tool]

    @classmethod
    def load(cls, name: str, config: PromptConfig, connection: str | None) -> PromptFlow:
        """Load the flow of a prompt.

        Args:
            name: name of the prompt, for errors.
            config: the prompt.
            connection: connection for every node that has one, or None for those of the flow.

        Raises:
            OpsError: the flow, the variant, the prompt file or the connection does not exist, or the flow
                cannot run.
        """
        definition = FlowDefinition.read(Path(config.flow or ""))
        if config.file and not config.file.is_file():
            what = f"prompts.{name}.file: {config.file} does not exist"
            raise OpsError(what, "Correct the path, which is relative to the sweep's file.")
        flow = load_checked_flow(f"prompts.{name}", definition.folder, config.variant)
        tools = load_checked_tools(f"prompts.{name}", flow, connection)
        return cls(name, config, definition, flow, {tool.node.name: tool for tool in tools})

    def settings(self, values: Mapping[str, Value]) -> FlowSettings:
        """Return where the values of a cell go.

        Args:
            values: `node.input`, input of the flow, or input of the only node that has it -> value.

        Raises:
            OpsError: the flow has no such parameter, several nodes have it, or the type of the value is
                wrong.
        """
        settings = FlowSettings()
        for name, value in {**self.config.inputs, **values}.items():
            node, _, node_input = name.rpartition(".")
            if not node and name in self.flow.inputs:
                self._check_type(name, value)
                settings.flow_inputs[name] = value
                continue
            node = self._node_with(name, node, node_input)
            settings.node_inputs.setdefault(node, {})[node_input] = value
        return settings

    def _check_type(self, name: str, value: Value) -> None:
        """Raise OpsError if an input of the flow cannot have a value."""
        text, value_type = value_text(value), self.flow.inputs[name].type
        if text.startswith("${"):  # a column
            return
        try:
            convert(text, value_type)
        except ValueError as error:
            what = f"{name}: {value!r} is not of the type {value_type}"
            fix = f"The input {name} of {self.definition.folder} has this type."
            raise OpsError(what, fix) from error

    def _node_with(self, name: str, node: str, node_input: str) -> str:
        """Return the node that has an input."""
        if node_input == CONNECTION:
            raise OpsError(f"{name!r} is not a parameter", "List the names in `connections`.")
        nodes = [node] if node else list(self.tools)
        matches = [each for each in nodes if node_input in self._inputs(each)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            fix = f"Write one of {', '.join(f'{each}.{node_input}' for each in matches)}."
            raise OpsError(f"several nodes of {self.definition.folder} have {name!r}", fix)
        known = [f"{each}.{parameter}" for each in self.tools for parameter in self._inputs(each)]
        known = [
            *self.flow.inputs,
            *(each for each in known if not each.endswith(f".{CONNECTION}")),
        ]
        what = f"{self.definition.folder}, the flow of the prompt {self.name}, has no parameter {name!r}"
        raise OpsError(what, f"It has {', '.join(known)}{did_you_mean(name, known)}")

    def _inputs(self, node: str) -> list[str]:
        """Return the inputs of a node: those of the flow's file, and the other ones of its tool."""
        if node not in self.tools:
            return []
        tool = self.tools[node]
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(tool.function).parameters.values()
        names = [] if tool.node.kind == PROMPT else [p.name for p in parameters if p.kind in named]
        return list(dict.fromkeys([*tool.node.inputs, *names]))

    def write(self, settings: FlowSettings, target: Path) -> None:
        """Write the flow of a cell: included files inserted, one variant of each node, new values.

        Args:
            settings: the values of the cell.
            target: folder to write.

        Raises:
            OpsError: a file of the flow cannot be copied, or no node has a prompt file to replace.
        """
        copy_flow(self.flow.folder, target, follow_links=True)
        content = resolve_variants(read_dag_file(self.flow.file), self.config.variant)
        content.pop("additional_includes", None)
        content["nodes"] = [
            _with_inputs(node, settings.node_inputs.get(node["name"], {}))
            for node in content["nodes"]
        ]
        write_dag_file(target / DAG_FILE, content)
        if self.config.file:
            shutil.copyfile(self.config.file, target / self._prompt_file())

    def _prompt_file(self) -> str:
        """Return the path of the prompt file that the prompt replaces, in the flow's folder."""
        files = {
            node.name: node.path
            for node in self.flow.nodes
            if node.path and not node.path.endswith(".py")
        }
        if self.config.node:
            files = {name: path for name, path in files.items() if name == self.config.node}
        if len(files) == 1:
            return next(iter(files.values()))
        folder = self.definition.folder
        where = f"prompts.{self.name}"
        if files:
            what = f"{where}: several nodes of {folder} have a prompt file"
            raise OpsError(what, f"Set `node` to one of {', '.join(files)}.")
        node = f"the node {self.config.node!r}" if self.config.node else "no node"
        what = f"{where}: {node} of {folder} has {'no' if self.config.node else 'a'} prompt file"
        raise OpsError(what, "Set its text in `inputs` instead of `file`.")


def load_checked_flow(where: str, folder: Path, variant: str | None = None) -> Flow:
    """Return a flow.

    Args:
        where: the field of the sweep's file, for errors.
        folder: the folder of the flow.
        variant: `node.variant`, or None.

    Raises:
        OpsError: this project's engine cannot run the flow, or the variant does not exist.
    """
    try:
        return load_flow(folder, variant)
    except FlowError as error:
        raise OpsError(f"{where}: {error}") from error


def load_checked_tools(where: str, flow: Flow, connection: str | None) -> list[Tool]:
    """Return the tools of a flow. A wrong value or connection is found before the first call.

    Args:
        where: the field of the sweep's file, for errors.
        flow: the flow.
        connection: connection for every node that has one, or None for those of the flow.

    Raises:
        OpsError: a tool, a connection or a value is wrong, or no node uses a connection.
    """
    connections = connections_of(flow, connection)
    if connection and not connections:
        what = f"{where}: no node of {flow.name} uses a connection"
        raise OpsError(what, f"Remove the connection {connection!r} from the sweep's file.")
    try:
        return load_tools(override_inputs(flow, connections), require_connection)
    except FlowError as error:
        raise OpsError(f"{where}: {error}") from error


def connections_of(flow: Flow, connection: str | None) -> dict[str, dict[str, str]]:
    """Return node -> input -> connection, for the nodes of a flow that have a connection.

    Args:
        flow: the flow.
        connection: the connection; None gives an empty result: the nodes keep their own.
    """
    if connection is None:
        return {}
    nodes = [node.name for node in flow.nodes if CONNECTION in node.inputs]
    return {node: {CONNECTION: connection} for node in nodes}


def _with_inputs(node: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    return {**node, "inputs": {**(node.get("inputs") or {}), **values}}
