"""The parameters of tools: their types, and the conversion of literal inputs to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin

from ..connections import Connection
from .errors import FlowError
from .model import Node
from .references import Assignment, Literal
from .values import UNSUPPORTED_TYPES, VALUE_TYPES, convert

CUSTOM_CONNECTION = "CustomConnection"
ConnectionLookup = Callable[[str], Any]


@dataclass(frozen=True)
class Parameter:
    """The declared types of a tool's parameter; literals are converted to `type`."""

    type: str
    connection_types: tuple[str, ...] = ()


def parameters_of(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the parameters of a Python tool, read as promptflow reads them."""
    original = getattr(function, "__original_function", function)
    no_type = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: _parameter(parameter)
        for name, parameter in inspect.signature(original).parameters.items()
        if name != "self" and parameter.kind not in no_type
    }


def declared_parameters(inputs: Mapping[str, Any]) -> dict[str, Parameter]:
    """Return the parameters of a package tool, from the `inputs` of its YAML."""
    parameters = {}
    for name, item in inputs.items():
        types = item["type"] if isinstance(item["type"], list) else [item["type"]]
        known = {value_type.lower(): value_type for value_type in VALUE_TYPES}
        first = known.get(str(types[0]).lower(), str(types[0]))
        connections = tuple(str(each) for each in types if str(each).endswith("Connection"))
        parameters[name] = Parameter(first, connections)
    return parameters


def convert_literals(
    node: Node, parameters: Mapping[str, Parameter], connections: ConnectionLookup
) -> dict[str, Assignment]:
    """Return a node's inputs with its literals converted, and without empty ones: as in promptflow.

    Args:
        node: the node.
        parameters: the parameters of its tool; other literals are passed as they are.
        connections: returns the connection of a name.

    Raises:
        FlowError: a literal does not have the parameter's type, or a connection does not exist.
    """
    inputs: dict[str, Assignment] = {}
    for name, assignment in node.inputs.items():
        if not isinstance(assignment, Literal):
            inputs[name] = assignment
        elif assignment.value is not None and assignment.value != "":
            value = assignment.value
            if name in parameters:
                value = _converted(node, name, value, parameters[name], connections)
            inputs[name] = Literal(value)
    return inputs


def _parameter(parameter: inspect.Parameter) -> Parameter:
    annotation = _without_optional(parameter.annotation)
    default = parameter.default
    if annotation is inspect.Parameter.empty and default is not inspect.Parameter.empty:
        annotation = type(default)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        annotation = str
    classes = annotation if isinstance(annotation, list) else [annotation]
    if all(isinstance(each, type) and each.__name__.endswith("Connection") for each in classes):
        names = tuple(_connection_type(each) for each in classes)
        return Parameter(names[0], names)
    return Parameter(_type_name(annotation))


def _connection_type(connection: type) -> str:
    return CUSTOM_CONNECTION if issubclass(connection, Connection) else connection.__name__


def _without_optional(annotation: Any) -> Any:
    """Return the class in Optional[class], or the list of classes in a Union."""
    if get_origin(annotation) is not Union:
        return annotation
    classes = [each for each in get_args(annotation) if each is not type(None)]
    return classes[0] if len(classes) == 1 else classes


_TYPE_NAMES = {int: "int", float: "double", bool: "bool", str: "string", list: "list"}
# Classes of promptflow, by name, because promptflow may be missing.
_CLASS_NAMES = {
    "Secret": "secret",
    "PromptTemplate": "prompt_template",
    "FilePath": "file_path",
    "Image": "image",
    "AssistantDefinition": "assistant_definition",
}


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type):
        by_class = _TYPE_NAMES.get(annotation)
        return by_class or _CLASS_NAMES.get(annotation.__name__, "object")
    return "object"


def _converted(
    node: Node, name: str, value: Any, parameter: Parameter, connections: ConnectionLookup
) -> Any:
    field = f"inputs.{name}"
    if parameter.connection_types:
        return _connection(node, name, value, parameter, connections)
    if parameter.type in UNSUPPORTED_TYPES:
        reason = f"inputs of type {parameter.type} are not supported"
        fix = "use promptflow's engine for it"
        raise FlowError(reason, fix, node=node.name, field=field, code="ResolveToolError")
    if parameter.type not in VALUE_TYPES:
        reason = f"the tool declares the type {parameter.type!r}, which does not exist"
        fix = f"declare one of {', '.join(VALUE_TYPES)}"
        raise FlowError(reason, fix, node=node.name, field=field, code="ResolveToolError")
    try:
        return convert(value, parameter.type)
    except Exception as error:
        reason = f"{value!r} is not a valid {parameter.type}"
        fix = f"write a value of type {parameter.type}"
        raise FlowError(
            reason, fix, node=node.name, field=field, code="ResolveToolError"
        ) from error


def _connection(
    node: Node, name: str, value: Any, parameter: Parameter, connections: ConnectionLookup
) -> Any:
    field = f"inputs.{name}"
    try:
        connection = connections(str(value))
    except Exception as error:
        # The errors of the `phi3` command say themselves what to do.
        reason = f"the connection {value!r} cannot be read: {getattr(error, 'what', error)}"
        advice = str(getattr(error, "fix", "")).rstrip(".")
        default = f"create it with `phi3 connect --name {value}`, or name another one"
        fix = advice[:1].lower() + advice[1:] or default
        raise FlowError(
            reason, fix, node=node.name, field=field, code="ResolveToolError"
        ) from error
    if isinstance(connection, Mapping):
        connection = Connection(str(value), dict(connection))
    kind = _connection_type(type(connection))
    if kind not in parameter.connection_types:
        reason = f"the connection {value!r} is a {kind}"
        fix = f"the tool takes a {' or '.join(parameter.connection_types)}"
        raise FlowError(reason, fix, node=node.name, field=field, code="ResolveToolError")
    return connection
