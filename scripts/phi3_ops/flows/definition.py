"""What the commands need to know of a flow: its version, its inputs, which nodes speak to an endpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import paths
from ..errors import OpsError


@dataclass(frozen=True)
class FlowDefinition:
    """A flow.dag.yaml.

    Attributes:
        folder: where it lies.
        inputs: input -> its definition.
        nodes: the nodes' definitions.
        version: the flow's, from `tags.version`, as it stands there; or None.
    """

    folder: Path
    inputs: Mapping[str, Mapping[str, Any]]
    nodes: list[Mapping[str, Any]]
    version: str | None

    @classmethod
    def read(cls, flow: Path) -> FlowDefinition:
        """Read a flow's folder, or one of the shipped flows by its name.

        Raises:
            OpsError: there is no flow.dag.yaml, or it is no flow.
        """
        places = (flow, paths.FLOWS / flow)
        folder = next((place for place in places if (place / "flow.dag.yaml").is_file()), None)
        if folder is None:
            fix = "Give a folder with a flow.dag.yaml, or the name of a shipped flow."
            raise OpsError(f"there is no flow in {flow}", fix)
        try:
            content = yaml.safe_load((folder / "flow.dag.yaml").read_text(encoding="utf-8"))
            version = (content.get("tags") or {}).get("version")
            return cls(folder, dict(content["inputs"]), list(content["nodes"]), version)
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"{folder / 'flow.dag.yaml'} is no flow"
            raise OpsError(what, "Compare it with flows/qa/flow.dag.yaml.") from error

    def connections(self, name: str) -> dict[str, dict[str, str]]:
        """Every node that takes a connection, given this one.

        Raises:
            OpsError: no node takes one.
        """
        nodes = [n["name"] for n in self.nodes if "connection" in (n.get("inputs") or {})]
        if not nodes:
            raise OpsError(f"no node of {self.folder} takes a connection", "Leave it out.")
        return {node: {"connection": name} for node in nodes}

    def connection_names(self, given: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Node -> the connection that it is given, else the one that the flow names."""
        found = {}
        for node in self.nodes:
            name = node.get("name", "")
            own = (node.get("inputs") or {}).get("connection")
            connection = given.get(name, {}).get("connection", own)
            if isinstance(connection, str) and connection and not connection.startswith("${"):
                found[name] = connection
        return found

    def columns(
        self, given: Mapping[str, str], data: Collection[str], outputs: Collection[str] = ()
    ) -> dict[str, str]:
        """Where each input comes from: what is given, else the base run's output or the data's column
        of the same name.

        An input's default would win over the data where nothing is said, and every line would then be
        the same: so an input is only left to its default when another one varies.

        Args:
            given: input -> `${data.x}`, `${run.outputs.x}` or a constant.
            data: the data file's columns.
            outputs: the base run's outputs.

        Raises:
            OpsError: an input has no source, or a given name is no input.
        """
        if unknown := sorted(set(given) - set(self.inputs)):
            fix = f"It has {', '.join(self.inputs)}."
            raise OpsError(f"{self.folder} has no input {unknown[0]!r}", fix)
        found = dict(given)
        for name in self.inputs:
            if name not in given and name in outputs:
                found[name] = f"${{run.outputs.{name}}}"
            elif name not in given and name in data:
                found[name] = f"${{data.{name}}}"
        varies = any(value.startswith("${") for value in found.values())
        for name, definition in self.inputs.items():
            if name not in found and ("default" not in definition or not varies):
                there = ", ".join(sorted(data)) or "none"
                fix = f"Give it one: --column-mapping {name}='${{data.COLUMN}}'. Columns: {there}."
                raise OpsError(f"the input {name!r} of {self.folder} has no column", fix)
        return found
