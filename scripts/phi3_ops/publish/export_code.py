"""A flow as the parts of the Python code that `phi3 flow export` writes: what the templates fill in."""

from __future__ import annotations

import builtins
import inspect
import keyword
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from phi3_tools.flow import (
    PACKAGE,
    PROMPT,
    Assignment,
    CustomConnection,
    InputReference,
    Literal,
    Node,
    NodeReference,
    Tool,
    convert_literals,
    parameters_of,
)

from ..errors import OpsError
from .export_flow import ExportedFlow, input_references
from .export_names import class_name, identifier, importable_path, literal, module_of, unique

# Names that the templates use themselves.
RESERVED = (
    *(
        "Any",
        "AsyncGenerator",
        "CONNECTIONS",
        "Executor",
        "Finish",
        "FlowInput",
        "FlowNode",
        "HERE",
    ),
    *(
        "INPUTS",
        "Line",
        "LineError",
        "Mapping",
        "Never",
        "OutputContext",
        "Path",
        "SKIPPED",
        "Start",
    ),
    *("TypeAlias", "VARIANTS", "Workflow", "WorkflowBuilder", "WorkflowContext", "aggregate_lines"),
    *("annotations", "argparse", "asyncio", "collect_metrics", "connection", "create_workflow"),
    *("handler", "json", "line", "main", "os", "outputs", "prompt_tool", "run_line", "run_lines"),
    *("run_nodes", "stream_line"),
    # Local names where a tool is called.
    *("lines", "metrics", "self", "total"),
)
# Names that the evaluator class uses beside its parameters.
EVALUATOR_NAMES = frozenset({"self", "kwargs", "outputs", "run_line", "run_sync"})


@dataclass(frozen=True)
class NodeCode:
    """A node as source text.

    Attributes:
        name: the node's name as a literal.
        identifier: name of the variable that holds its executor.
        class_name: name of its executor's class.
        function_name: name of its function.
        description: docstring.
        condition: expression that is true if the node is skipped; may be empty.
        tool: expression of its tool.
        arguments: keyword arguments of the tool.
        needs: names of the nodes that it needs.
        choices: variant -> class, of a node with variants; as literals and names.
        function_choices: variant -> function, likewise.
    """

    name: str
    identifier: str
    class_name: str
    function_name: str
    description: str
    condition: str
    tool: str
    arguments: tuple[str, ...]
    needs: frozenset[str]
    choices: tuple[tuple[str, str], ...] = ()
    function_choices: tuple[tuple[str, str], ...] = ()

    @property
    def run_text(self) -> str:
        """The call that runs the node of a line."""
        function = self.function_name
        if self.function_choices:
            function = f'{self.identifier}_functions.get(variant or "", {function})'
        return f"line.run({self.name}, {function})"


@dataclass
class CodeNames:
    """Imports, constants and names of one generated module."""

    imports: dict[str, str] = field(default_factory=dict)  # name -> import statement
    constants: dict[str, str] = field(default_factory=dict)  # name -> assignment
    taken: set[str] = field(default_factory=lambda: {*RESERVED, *dir(builtins)})
    variables: set[str] = field(default_factory=lambda: {"start", "finish", "line", "variant"})

    def imported(self, module: str, name: str, owner: str) -> str:
        """Import a name of a module; return the name in the generated module."""
        for known, statement in self.imports.items():
            if statement in (
                f"from {module} import {name}",
                f"from {module} import {name} as {known}",
            ):
                return known
        local = name if name not in self.taken else unique(f"{owner}_{name}", self.taken)
        self.taken.add(local)
        suffix = "" if local == name else f" as {local}"
        self.imports[local] = f"from {module} import {name}{suffix}"
        return local

    def constant(self, name: str, value: str) -> str:
        """Define a constant; return its name."""
        local = unique(name, self.taken)
        self.taken.add(local)
        self.constants[local] = f"{local} = {value}"
        return local


def node_codes(exported: ExportedFlow, names: CodeNames) -> tuple[list[NodeCode], list[NodeCode]]:
    """Return the code of every node and variant, and of every node with its choice of variants."""
    every: list[NodeCode] = []
    graph: list[NodeCode] = []
    for name in exported.needs:
        choices = exported.nodes[name]
        codes = {
            choice: _node_code(exported, names, tool, choice) for choice, tool in choices.items()
        }
        every += codes.values()
        others = {choice: code for choice, code in codes.items() if choice}
        graph.append(
            _with_choices(
                codes[""],
                exported.needs[name],
                tuple((literal(choice), code.class_name) for choice, code in others.items()),
                tuple((literal(choice), code.function_name) for choice, code in others.items()),
            )
        )
    return every, graph


def _with_choices(
    code: NodeCode,
    needs: frozenset[str],
    choices: tuple[tuple[str, str], ...],
    function_choices: tuple[tuple[str, str], ...],
) -> NodeCode:
    return replace(code, needs=needs, choices=choices, function_choices=function_choices)


def _node_code(exported: ExportedFlow, names: CodeNames, tool: Tool, choice: str) -> NodeCode:
    node = tool.node
    label = choice.replace(".", "_") if choice else node.name
    # The variables are local: they may have the names of imported tools.
    variable = unique(identifier(node.name), () if choice else names.variables)
    class_label = unique(class_name(label), names.taken)
    function_name = unique(f"run_{identifier(label)}", names.taken)
    names.variables.add(variable)
    names.taken |= {class_label, function_name}
    return NodeCode(
        name=literal(node.name),
        identifier=variable,
        class_name=class_label,
        function_name=function_name,
        description=_description(node, choice),
        condition=_condition(exported, tool),
        tool=tool_expression(names, tool),
        arguments=tuple(_arguments(exported, tool, names)),
        needs=frozenset(node.references),
    )


def _description(node: Node, choice: str) -> str:
    what = {PROMPT: "the prompt", PACKAGE: "the tool"}.get(node.kind, "the function in")
    source = node.tool if node.kind == PACKAGE else node.path
    variant = f", variant `{choice.partition('.')[2]}`" if choice else ""
    text = f"Node `{node.name}`{variant}: {what} {source}."
    return text.replace("\\", "\\\\").replace('"', "'")


def tool_expression(names: CodeNames, tool: Tool) -> str:
    """Return the expression of a node's tool, and add its import or its constant to the names.

    Raises:
        OpsError: the constructor of the tool's class takes a connection.
    """
    node, owner = tool.node, identifier(tool.node.name)
    if node.kind == PROMPT:
        return names.constant(
            f"{owner.upper()}_PROMPT", f"prompt_tool(HERE / {literal(node.path)})"
        )
    function = getattr(tool.function, "func", tool.function)  # of a package tool with a prompt
    if node.kind == PACKAGE:
        module, _, name = str(node.tool).rpartition(".")
        return names.imported(module, name, owner)
    module = module_of(importable_path(str(node.path)))
    if inspect.ismethod(function):
        class_of_tool = names.imported(module, type(function.__self__).__name__, owner)
        arguments = ", ".join(_constructor_arguments(tool, type(function.__self__)))
        instance = f"{class_of_tool}({arguments}).{function.__name__}"
        return names.constant(f"{owner.upper()}_TOOL", instance)
    return names.imported(module, function.__name__, owner)


def _constructor_arguments(tool: Tool, owner: type) -> Iterable[str]:
    """Return the arguments of the constructor of a tool's class: the node's other literals.

    Raises:
        OpsError: an argument is a connection.
    """
    parameters = parameters_of(owner.__init__)  # type: ignore[misc]
    literals = convert_literals(tool.node, parameters, CustomConnection)
    arguments = {}
    for name, assignment in literals.items():
        if name in tool.inputs or not isinstance(assignment, Literal):
            continue
        if isinstance(assignment.value, CustomConnection):
            what = (
                f"node {tool.node.name!r}: the constructor of {owner.__name__} takes a connection"
            )
            raise OpsError(what, "Give the connection to the method.")
        arguments[name] = literal(assignment.value)
    return keyword_arguments(arguments)


def _arguments(exported: ExportedFlow, tool: Tool, names: CodeNames) -> Iterable[str]:
    arguments = {
        name: _value(assignment, exported.may_be_skipped)
        for name, assignment in tool.inputs.items()
    }
    if tool.node.kind == PACKAGE and tool.node.path:
        prompt = f'(HERE / {literal(tool.node.path)}).read_text(encoding="utf-8")'
        constant = names.constant(f"{identifier(tool.node.name).upper()}_PROMPT", prompt)
        arguments |= dict.fromkeys(getattr(tool.function, "keywords", {}), constant)
    if tool.streaming_option and tool.node.name in exported.flow.streaming_nodes:
        arguments[tool.streaming_option] = "line.stream"
    return keyword_arguments(arguments)


def keyword_arguments(arguments: Mapping[str, str]) -> Iterable[str]:
    """Yield each argument as source text."""
    for name, value in arguments.items():
        is_keyword = not name.isidentifier() or keyword.iskeyword(name)
        yield f"{name}={value}" if not is_keyword else f"**{{{literal(name)}: {value}}}"


def _value(assignment: Assignment, may_be_skipped: frozenset[str] = frozenset()) -> str:
    if isinstance(assignment, InputReference):
        return f"line.inputs[{literal(assignment.name)}]"
    if isinstance(assignment, NodeReference):
        method = "argument" if assignment.node in may_be_skipped else "output"
        return f"line.{method}({_reference(assignment)})"
    return literal_value(assignment)


def literal_value(assignment: Literal) -> str:
    """Return a literal input of a node as source text."""
    if isinstance(assignment.value, CustomConnection):
        return f"connection({literal(assignment.value.name)})"
    return literal(assignment.value)


def _reference(reference: NodeReference) -> str:
    properties = f", {literal(reference.properties)}" if reference.properties else ""
    return f"{literal(reference.node)}{properties}"


def _condition(exported: ExportedFlow, tool: Tool) -> str:
    activate = tool.node.activate
    if activate:
        return f"{_value(activate.when, exported.may_be_skipped)} != {literal(activate.value)}"
    references = input_references(tool)
    if references and references <= exported.may_be_skipped:
        names = ", ".join(literal(name) for name in sorted(references))
        return f"line.is_skipped({names})"
    return ""


def aggregated_parts(exported: ExportedFlow) -> list[str]:
    """Return the expressions of the parts of outputs that the aggregation nodes need."""
    references = {
        str(assignment): assignment
        for tool in exported.aggregation
        for assignment in tool.inputs.values()
        if isinstance(assignment, NodeReference)
        and assignment.properties
        and assignment.node in exported.nodes
    }
    return [_value(reference) for reference in references.values()]


def parameter_codes(exported: ExportedFlow) -> list[str]:
    """Return the inputs as parameters of a Python function, as source text.

    Raises:
        OpsError: a name is not a Python identifier.
    """
    types = {"string": "str", "int": "int", "double": "float", "bool": "bool", "list": "list[Any]"}
    parameters = []
    for item in exported.flow.inputs.values():
        is_reserved = keyword.iskeyword(item.name) or item.name in EVALUATOR_NAMES
        if not item.name.isidentifier() or is_reserved:
            what = f"the input {item.name!r} cannot be a parameter of a Python function"
            fix = (
                "Rename it: letters, digits, underscores, and no name that Python or the code uses."
            )
            raise OpsError(what, fix)
        default = "" if item.default is None else f" = {literal(item.default)}"
        parameters.append(f"{item.name}: {types.get(item.type, 'Any')}{default}")
    return parameters


def output_codes(exported: ExportedFlow) -> list[tuple[str, str]]:
    """Return output name -> its expression, as source text."""
    return [(literal(n), _value(o.reference)) for n, o in exported.flow.outputs.items()]


def input_codes(exported: ExportedFlow) -> list[list[str]]:
    """Return the arguments of `FlowInput` for every input, as source text."""
    return [
        [
            literal(item.name),
            literal(item.type),
            *([] if item.default is None else [literal(item.default)]),
        ]
        for item in exported.flow.inputs.values()
    ]


def aggregation_codes(exported: ExportedFlow, names: CodeNames) -> list[NodeCode]:
    """Return the code of the aggregation nodes, in which references to lines are lists."""
    aggregations = {tool.node.name for tool in exported.aggregation}
    codes = []
    for tool in exported.aggregation:
        arguments = {
            name: _aggregated(assignment, aggregations) for name, assignment in tool.inputs.items()
        }
        activate = tool.node.activate
        condition = ""
        if activate:
            condition = f"{_aggregated(activate.when, aggregations)} != {literal(activate.value)}"
        function_name = unique(f"run_{identifier(tool.node.name)}", names.taken)
        names.taken.add(function_name)
        codes.append(
            NodeCode(
                name=literal(tool.node.name),
                identifier=identifier(tool.node.name),
                class_name="",
                function_name=function_name,
                description=_description(tool.node, ""),
                condition=condition,
                tool=tool_expression(names, tool),
                arguments=tuple(keyword_arguments(arguments)),
                needs=frozenset(),
            )
        )
    return codes


def _aggregated(assignment: Assignment, aggregations: set[str]) -> str:
    if isinstance(assignment, Literal):
        return literal_value(assignment)
    if isinstance(assignment, NodeReference) and assignment.node in aggregations:
        return f"line.output({_reference(assignment)})"
    return f"[{_value(assignment)} for line in lines]"
