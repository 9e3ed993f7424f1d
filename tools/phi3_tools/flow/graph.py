"""Checks the references between inputs, nodes and outputs, and sorts the nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .errors import FlowError
from .model import FlowInput, FlowOutput, Node
from .references import Assignment, InputReference, NodeReference


def check_graph(
    nodes: Sequence[Node], inputs: Mapping[str, FlowInput], outputs: Mapping[str, FlowOutput]
) -> list[Node]:
    """Return the nodes in an order in which each comes after the nodes that it needs.

    Raises:
        FlowError: two nodes have one name, a reference does not exist or is not allowed, or nodes need
            each other in a circle.
    """
    by_name: dict[str, Node] = {}
    for node in nodes:
        if node.name in by_name:
            fix = "rename one of them"
            reason = "two nodes have this name"
            raise FlowError(reason, fix, node=node.name, field="name", code="DuplicateNodeName")
        by_name[node.name] = node
    for node in nodes:
        _check_inputs(node, inputs)
    for node in nodes:
        _check_references(node, by_name)
    order = _sorted(nodes)
    for name, output in outputs.items():
        _check_output(name, output.reference, by_name, inputs)
    return order


def _check_inputs(node: Node, inputs: Mapping[str, FlowInput]) -> None:
    assignments: dict[str, Assignment] = {f"inputs.{n}": each for n, each in node.inputs.items()}
    if node.activate:
        assignments["activate.when"] = node.activate.when
    for field, assignment in assignments.items():
        if isinstance(assignment, InputReference) and assignment.name not in inputs:
            raise FlowError(
                f"the flow has no input {assignment.name!r}",
                f"refer to one of the inputs {', '.join(inputs) or '(none)'}",
                node=node.name,
                field=field,
                code="InputReferenceNotFound",
            )


def _check_references(node: Node, by_name: Mapping[str, Node]) -> None:
    condition = node.activate.when if node.activate else None
    when = condition.node if isinstance(condition, NodeReference) else None
    if node.aggregation and when and when in by_name and not by_name[when].aggregation:
        raise FlowError(
            f"the condition of an aggregation node refers to {when!r}, which runs for each line",
            "refer to another aggregation node, or remove `activate`",
            node=node.name,
            field="activate.when",
            code="InvalidNodeReference",
        )
    for name in sorted(node.references):
        if name not in by_name:
            raise FlowError(
                f"the flow has no node {name!r}",
                f"refer to one of the nodes {', '.join(by_name)}",
                node=node.name,
                field=_field_of(node, name),
                code="NodeReferenceNotFound",
            )
        if by_name[name].aggregation and not node.aggregation:
            raise FlowError(
                f"it needs the aggregation node {name!r}, which runs after all lines",
                "refer to a node that runs for each line",
                node=node.name,
                field=_field_of(node, name),
                code="InvalidNodeReference",
            )


def _field_of(node: Node, name: str) -> str:
    for key, assignment in node.inputs.items():
        if isinstance(assignment, NodeReference) and assignment.node == name:
            return f"inputs.{key}"
    return "activate.when"


def _sorted(nodes: Sequence[Node]) -> list[Node]:
    order: list[Node] = []
    picked: set[str] = set()
    while len(order) < len(nodes):
        ready = _first_ready(nodes, picked)
        if ready is None:
            circle = ", ".join(sorted(node.name for node in nodes if node.name not in picked))
            raise FlowError(
                f"the nodes {circle} need each other in a circle",
                "remove one of their references",
                field="nodes",
                code="NodeCircularDependency",
            )
        order.append(ready)
        picked.add(ready.name)
    return order


def _first_ready(nodes: Iterable[Node], picked: set[str]) -> Node | None:
    return next((n for n in nodes if n.name not in picked and n.references <= picked), None)


def _check_output(
    name: str,
    reference: Assignment,
    by_name: Mapping[str, Node],
    inputs: Mapping[str, FlowInput],
) -> None:
    field = f"outputs.{name}.reference"
    if isinstance(reference, InputReference) and reference.name not in inputs:
        fix = f"refer to one of the inputs {', '.join(inputs) or '(none)'}"
        reason = f"the flow has no input {reference.name!r}"
        raise FlowError(reason, fix, field=field, code="OutputReferenceNotFound")
    if isinstance(reference, NodeReference) and reference.node not in by_name:
        fix = f"refer to one of the nodes {', '.join(by_name)}"
        reason = f"the flow has no node {reference.node!r}"
        raise FlowError(reason, fix, field=field, code="OutputReferenceNotFound")
