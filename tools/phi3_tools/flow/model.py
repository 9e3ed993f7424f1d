"""The parts of a flow: inputs, outputs, nodes, and their conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .references import Assignment, NodeReference

PYTHON, PACKAGE, PROMPT = "python", "package", "prompt"  # kinds of nodes
LLM_TOOL = "phi3_tools.pf_calls.ask_llm"  # the tool of llm nodes


@dataclass(frozen=True)
class FlowInput:
    """An input of a flow. A `default` of None means that the input must be given."""

    name: str
    type: str
    default: Any = None
    description: str = ""
    is_chat_input: bool = False
    is_chat_history: bool = False


@dataclass(frozen=True)
class FlowOutput:
    """An output of a flow."""

    name: str
    type: str
    reference: Assignment
    description: str = ""
    is_chat_output: bool = False


@dataclass(frozen=True)
class Activate:
    """A condition: the node runs if the value of `when` equals `value`."""

    when: Assignment
    value: Any


@dataclass(frozen=True)
class Node:
    """A node of a flow.

    Attributes:
        name: its name.
        kind: `python` (a file of the flow), `package` (a tool of an installed package) or `prompt`.
        path: the Python file, or the jinja2 file of a prompt or of a package tool with a prompt;
            relative to the flow's folder.
        tool: id of the package tool, such as `phi3_tools.pf_tools.phi3_chat`.
        inputs: input name -> literal or reference.
        activate: the condition, or None.
        aggregation: whether the node runs once, after all lines.
    """

    name: str
    kind: str
    path: str | None
    tool: str | None
    inputs: Mapping[str, Assignment]
    activate: Activate | None = None
    aggregation: bool = False

    @property
    def references(self) -> set[str]:
        """Names of the nodes whose outputs this node needs."""
        assignments = [*self.inputs.values(), *([self.activate.when] if self.activate else [])]
        return {each.node for each in assignments if isinstance(each, NodeReference)}


@dataclass(frozen=True)
class Flow:
    """A flow.dag.yaml.

    Attributes:
        name: name of the flow's folder.
        folder: the folder in which the nodes' files are; a temporary one with `additional_includes`.
        file: the flow.dag.yaml.
        inputs: input name -> definition.
        outputs: output name -> definition, without outputs of aggregation nodes.
        nodes: the nodes, each after the nodes that it needs.
        variant: the variant that was chosen, such as `node.variant_1`, or None for the defaults.
        variants: node name -> ids of its variants, the default first.
        type: `standard`, `chat` or `evaluation`.
        environment: the field `environment`, such as `{"python_requirements_txt": "requirements.txt"}`.
        environment_variables: the field of this name.
        content: the complete file as plain types.
    """

    name: str
    folder: Path
    file: Path
    inputs: Mapping[str, FlowInput]
    outputs: Mapping[str, FlowOutput]
    nodes: tuple[Node, ...]
    variant: str | None = None
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    type: str = "standard"
    environment: Mapping[str, Any] = field(default_factory=dict)
    environment_variables: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)

    def node(self, name: str) -> Node:
        """Return the node of a name."""
        return next(node for node in self.nodes if node.name == name)

    @property
    def line_nodes(self) -> list[Node]:
        """The nodes that run for each line."""
        return [node for node in self.nodes if not node.aggregation]

    @property
    def aggregation_nodes(self) -> list[Node]:
        """The nodes that run once, after all lines."""
        return [node for node in self.nodes if node.aggregation]

    @property
    def chat_input(self) -> str | None:
        """Name of the input with `is_chat_input`."""
        return next((name for name, item in self.inputs.items() if item.is_chat_input), None)

    @property
    def chat_history(self) -> str | None:
        """Name of the input with `is_chat_history`."""
        return next((name for name, item in self.inputs.items() if item.is_chat_history), None)

    @property
    def chat_output(self) -> str | None:
        """Name of the output with `is_chat_output`."""
        return next((name for name, item in self.outputs.items() if item.is_chat_output), None)

    @property
    def streaming_nodes(self) -> list[str]:
        """Names of the nodes that may stream: an output refers to them, and no other node does."""
        referenced = {
            output.reference.node
            for output in self.outputs.values()
            if isinstance(output.reference, NodeReference)
        }
        needed = {name for node in self.nodes for name in node.references}
        return [node.name for node in self.nodes if node.name in referenced - needed]
