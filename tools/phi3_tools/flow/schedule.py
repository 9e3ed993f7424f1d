"""The order of the nodes of one line: which node is ready, which is skipped, what each gets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .references import Assignment, NodeReference, value_of
from .results import SKIPPED, NodeRun
from .tools import Tool

log = logging.getLogger("phi3_tools")


class Graph:
    """The dependencies between tools, computed once for all lines.

    Args:
        tools: the tools, in the order of the flow.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools = tools
        self.by_name = {tool.node.name: tool for tool in tools}
        self.needs = {tool.node.name: len(_needed(tool)) for tool in tools}
        self.needed_by: dict[str, list[str]] = {tool.node.name: [] for tool in tools}
        for tool in tools:
            for name in _needed(tool):
                self.needed_by[name].append(tool.node.name)
        self.first = [name for name, count in self.needs.items() if count == 0]


class Schedule:
    """The state of one line. Only one thread at a time may use it.

    Args:
        graph: the dependencies.
        inputs: the flow's inputs, complete and converted.

    Attributes:
        outputs: node name -> output; None for skipped nodes.
        skipped: names of the skipped nodes.
        runs: node name -> its run.
    """

    def __init__(self, graph: Graph, inputs: Mapping[str, Any]) -> None:
        self._graph = graph
        self._inputs = inputs
        self._needs = dict(graph.needs)
        self.outputs: dict[str, Any] = {}
        self.skipped: set[str] = set()
        self.runs: dict[str, NodeRun] = {}

    def start(self) -> list[Tool]:
        """Return the tools that can run at once."""
        return self._ready(self._graph.first)

    def complete(self, tool: Tool, output: Any) -> list[Tool]:
        """Record an output, and return the tools that can run now.

        Raises:
            LineError: a condition refers to something that does not exist.
        """
        name = tool.node.name
        self.outputs[name] = output
        return self._ready(self._released_by(name))

    def arguments(self, tool: Tool) -> dict[str, Any]:
        """Return the keyword arguments of a tool.

        An input whose node was skipped is left out if the parameter has a default; else it is None.

        Raises:
            LineError: a reference cannot be resolved.
        """
        arguments = {}
        for name, assignment in tool.inputs.items():
            if not self._is_skipped(assignment):
                arguments[name] = value_of(assignment, self._inputs, self.outputs)
            elif name not in tool.defaults:
                arguments[name] = None
        return arguments

    def _ready(self, names: Sequence[str]) -> list[Tool]:
        ready: list[Tool] = []
        waiting = list(names)
        while waiting:
            tool = self._graph.by_name[waiting.pop(0)]
            if self._skips(tool):
                name = tool.node.name
                self.skipped.add(name)
                self.outputs[name] = None
                self.runs[name] = NodeRun(name, SKIPPED)
                waiting += self._released_by(name)
            else:
                ready.append(tool)
        return ready

    def _released_by(self, name: str) -> list[str]:
        released = []
        for dependent in self._graph.needed_by[name]:
            self._needs[dependent] -= 1
            if self._needs[dependent] == 0:
                released.append(dependent)
        return released

    def _skips(self, tool: Tool) -> bool:
        activate = tool.node.activate
        if activate:
            if self._is_skipped(activate.when):
                return True
            value = value_of(activate.when, self._inputs, self.outputs)
            return not bool(value == activate.value)
        references = [each for each in tool.inputs.values() if isinstance(each, NodeReference)]
        return bool(references) and all(self._is_skipped(each) for each in references)

    def _is_skipped(self, assignment: Assignment) -> bool:
        return isinstance(assignment, NodeReference) and assignment.node in self.skipped


def _needed(tool: Tool) -> set[str]:
    assignments = list(tool.inputs.values())
    if tool.node.activate:
        assignments.append(tool.node.activate.when)
    return {each.node for each in assignments if isinstance(each, NodeReference)}
