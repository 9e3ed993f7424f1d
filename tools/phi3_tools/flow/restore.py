"""Change a flow's inputs for one run, and restore the results of lines that ran earlier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .errors import FlowError
from .model import Flow, Node
from .references import Literal, NodeReference, value_of
from .results import LineResult


def override_inputs(flow: Flow, overrides: Mapping[str, Mapping[str, Any]]) -> Flow:
    """Return a flow in which some inputs of nodes have other literals, such as another connection.

    Args:
        flow: the flow.
        overrides: node -> input -> value.

    Raises:
        FlowError: the flow has no such node.
    """
    names = {node.name for node in flow.nodes}
    if unknown := sorted(set(overrides) - names):
        fix = f"use one of {', '.join(sorted(names))}"
        raise FlowError(f"the node {unknown[0]!r} does not exist", fix, field="nodes")

    def overridden(node: Node) -> Node:
        values = {name: Literal(value) for name, value in overrides.get(node.name, {}).items()}
        return replace(node, inputs={**node.inputs, **values}) if values else node

    return replace(flow, nodes=tuple(overridden(node) for node in flow.nodes))


def restore_line(
    flow: Flow,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    node_outputs: Mapping[str, Any],
) -> LineResult:
    """Return the result of a line that completed earlier, for `Engine.aggregate`.

    Args:
        flow: the flow.
        inputs: the inputs of the line.
        outputs: its outputs.
        node_outputs: node name -> output.

    Raises:
        LineError: a node's output lacks what an aggregation node refers to.
    """
    references = [
        each
        for node in flow.aggregation_nodes
        for each in node.inputs.values()
        if isinstance(each, NodeReference) and not flow.node(each.node).aggregation
    ]
    # A node that was skipped has no record; its output is None.
    known = {node.name: node_outputs.get(node.name) for node in flow.line_nodes}
    values = {str(each): value_of(each, {}, known) for each in references}
    return LineResult(dict(inputs), dict(outputs), aggregation_inputs=values)
