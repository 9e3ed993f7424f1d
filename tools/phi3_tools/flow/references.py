"""The inputs of nodes: literals, `${inputs.name}` and `${node.output.property}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Union

from .errors import LineError, invalid_reference, unsupported_section

INPUT_PREFIXES = ("flow.", "inputs.")
_PROPERTY = re.compile(r"(\w+)|(\['.*?'\])|(\[\d+\])")


@dataclass(frozen=True)
class Literal:
    """A value that is written in the flow.

    Attributes:
        value: the value.
        is_computed: whether it was computed instead, and so belongs to one call only.
    """

    value: Any
    is_computed: bool = False

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class InputReference:
    """`${inputs.name}`: an input of the flow."""

    name: str

    def __str__(self) -> str:
        return f"${{inputs.{self.name}}}"


@dataclass(frozen=True)
class NodeReference:
    """`${node.output.property}`: the output of a node, or a part of it.

    Attributes:
        node: name of the node.
        section: `output`, or another word, which makes the line fail.
        properties: what follows, such as `scores['a'][0].b`, or an empty string.
    """

    node: str
    section: str = "output"
    properties: str = ""

    def __str__(self) -> str:
        properties = f".{self.properties}" if self.properties else ""
        return f"${{{self.node}.{self.section}{properties}}}"


Assignment = Union[Literal, InputReference, NodeReference]  # noqa: UP007 - Python 3.9 imports it


def parse_assignment(value: Any) -> Assignment:
    """Return the meaning of a node's input as it is written in the flow."""
    is_reference = isinstance(value, str) and value.startswith("${") and value.endswith("}")
    if not is_reference or len(value) == len("${"):
        return Literal(value)
    text = str(value)[2:-1]
    for prefix in INPUT_PREFIXES:
        if text.startswith(prefix):
            return InputReference(text[len(prefix) :])
    node, _, rest = text.partition(".")
    if not rest and "." not in text:
        return NodeReference(node)
    section, _, properties = rest.partition(".")
    return NodeReference(node, section, properties)


def value_of(
    assignment: Assignment, inputs: Mapping[str, Any], node_outputs: Mapping[str, Any]
) -> Any:
    """Return the value of an assignment.

    Raises:
        LineError: the reference cannot be resolved.
    """
    if isinstance(assignment, Literal):
        if isinstance(assignment.value, (list, dict)) and not assignment.is_computed:
            return deepcopy(assignment.value)  # a tool may change it
        return assignment.value
    if isinstance(assignment, InputReference):
        return inputs[assignment.name]
    if assignment.section != "output":
        raise unsupported_section(assignment.node, assignment.section)
    return _referenced(assignment, node_outputs)


def output_of(
    reference: Assignment, inputs: Mapping[str, Any], node_outputs: Mapping[str, Any]
) -> Any:
    """Return the value of a flow's output. Unlike `value_of` it ignores the section, as promptflow does.

    Raises:
        LineError: the reference cannot be resolved.
    """
    if isinstance(reference, NodeReference):
        return _referenced(reference, node_outputs)
    return value_of(reference, inputs, node_outputs)


def _referenced(reference: NodeReference, node_outputs: Mapping[str, Any]) -> Any:
    output = node_outputs[reference.node]
    if not reference.properties:
        return output
    return _property_of(reference.node, output, reference.properties)


def _property_of(node: str, output: Any, properties: str) -> Any:
    value = output
    try:
        for name, key, index in _PROPERTY.findall(properties):
            if name:
                value = value[name] if isinstance(value, dict) else getattr(value, name)
            else:
                value = value[key[2:-2] if key else int(index[1:-1])]
    except (KeyError, IndexError, AttributeError) as error:
        raise invalid_reference(node, properties) from error
    except Exception as error:  # such as an index into a number
        raise LineError.of_system(error, node) from error
    return value
