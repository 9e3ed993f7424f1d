"""Loads a flow with all its variants, and refuses what cannot be exported."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from phi3_tools.flow import (
    CustomConnection,
    Flow,
    FlowError,
    Node,
    NodeReference,
    Tool,
    connection_reference,
    environment_texts,
    load_flow,
    load_tools,
)

from ..errors import OpsError
from ..names import require_name

OWN_TOOLS = "phi3_tools."


@dataclass(frozen=True)
class ExportedFlow:
    """A flow that can be exported.

    Attributes:
        flow: the flow with its default variants.
        nodes: the nodes of lines with all their variants, as tools; the defaults first.
        aggregation: tools of the aggregation nodes.
        needs: node of a line -> the nodes that it needs, in any variant; in a possible order.
        may_be_skipped: names of the nodes that may not run.
        connections: names of the connections.
    """

    flow: Flow
    nodes: Mapping[str, Mapping[str, Tool]]
    aggregation: tuple[Tool, ...]
    needs: Mapping[str, frozenset[str]]
    may_be_skipped: frozenset[str]
    connections: tuple[str, ...]

    @property
    def levels(self) -> list[list[str]]:
        """The nodes in groups: each needs only nodes of earlier groups."""
        depth: dict[str, int] = {}
        for name, needs in self.needs.items():
            depth[name] = 1 + max((depth[need] for need in needs), default=-1)
        groups: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
        for name, level in depth.items():
            groups[level].append(name)
        return groups


def read_flow(folder: Path) -> ExportedFlow:
    """Load a flow with all its variants.

    Raises:
        OpsError: the flow cannot be exported; one line names the node and the fix.
    """
    names: dict[str, CustomConnection] = {}

    def connection(name: str) -> CustomConnection:
        return names.setdefault(name, CustomConnection(name))

    try:
        flow = load_flow(folder)
        _refuse_includes(flow)
        with _variables(environment_of(flow)):
            tools = {tool.node.name: tool for tool in load_tools(flow, connection)}
            nodes = {node.name: {"": tools[node.name]} for node in flow.line_nodes}
            for name, variants in flow.variants.items():
                for variant in variants[1:] if name in nodes else ():
                    choice = f"{name}.{variant}"
                    other = load_flow(folder, choice)
                    nodes[name][choice] = next(
                        tool for tool in load_tools(other, connection) if tool.node.name == name
                    )
    except FlowError as error:
        node = f"node {error.node!r}: " if error.node else ""
        place = f"`{error.field}`: " if error.field else ""
        what = f"{folder} cannot be exported: {node}{place}{error.reason}"
        raise OpsError(what, f"{error.fix[:1].upper()}{error.fix[1:]}.") from error
    for name in names:
        require_name(name, f"{folder} cannot be exported: name of a connection")
    for tool in [*tools.values(), *(t for choices in nodes.values() for t in choices.values())]:
        _refuse_foreign_tool(tool.node)
    needs = _needs(nodes)
    return ExportedFlow(
        flow,
        nodes,
        tuple(tools[node.name] for node in flow.aggregation_nodes),
        needs,
        _skippable(nodes, needs),
        tuple(names),
    )


def environment_of(flow: Flow) -> dict[str, str]:
    """Return the flow's environment variables.

    Raises:
        OpsError: a value refers to a connection.
    """
    texts = environment_texts(flow)
    for name, text in texts.items():
        if connection_reference(text):
            what = f"the environment variable {name} of the flow refers to a connection"
            raise OpsError(what, "Remove it from the flow, and set it where the export runs.")
    return texts


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block: nodes may read them when they are imported."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _refuse_foreign_tool(node: Node) -> None:
    """Raise OpsError if a node uses a tool of another package, which is made for promptflow."""
    if node.tool and not node.tool.startswith(OWN_TOOLS):
        what = f"node {node.name!r}: {node.tool} is a tool of another package"
        raise OpsError(what, "Write its work as a python node, or use a tool of phi3_tools.")


def _refuse_includes(flow: Flow) -> None:
    if includes := flow.content.get("additional_includes"):
        raise FlowError(
            f"it includes {includes[0]}, which is outside the flow's folder",
            "copy the file into the folder of the flow",
            field="additional_includes",
        )


def _needs(nodes: Mapping[str, Mapping[str, Tool]]) -> dict[str, frozenset[str]]:
    needs = {
        name: frozenset(need for tool in choices.values() for need in tool.node.references)
        for name, choices in nodes.items()
    }
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        names = ", ".join(dict.fromkeys(error.args[1]))
        what = f"the nodes {names} need each other in a circle, in different variants"
        raise OpsError(what, "Remove one of their references.") from error
    return {name: needs[name] for name in order}


def _skippable(
    nodes: Mapping[str, Mapping[str, Tool]], needs: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    skippable: set[str] = set()
    for name in needs:
        for tool in nodes[name].values():
            references = input_references(tool)
            if tool.node.activate or (references and references <= skippable):
                skippable.add(name)
    return frozenset(skippable)


def input_references(tool: Tool) -> set[str]:
    """Return the names of the nodes whose outputs are inputs of a tool."""
    return {each.node for each in tool.inputs.values() if isinstance(each, NodeReference)}
