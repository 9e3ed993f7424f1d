"""The part of a flow.dag.yaml that commands need: version, inputs, and nodes that use a connection."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import paths
from ..errors import OpsError
from ..names import did_you_mean
from ..yaml_files import load_yaml


@dataclass(frozen=True)
class FlowDefinition:
    """A flow.dag.yaml.

    Attributes:
        folder: the flow's folder.
        inputs: input name -> its definition.
        nodes: the definitions of the nodes.
        version: the flow's `tags.version` as written in the file, or None.
        outputs: names of the outputs.
    """

    folder: Path
    inputs: Mapping[str, Mapping[str, Any]]
    nodes: list[Mapping[str, Any]]
    version: str | None
    outputs: Sequence[str] = ()

    @classmethod
    def read(cls, flow: Path) -> FlowDefinition:
        """Read a flow from its folder, or by its name: a flow of this project, or a shipped one.

        Raises:
            OpsError: the folder has no flow.dag.yaml, or the file is not a valid flow.
        """
        candidates = (flow, paths.flows_folder() / flow, paths.FLOWS / flow)
        folder = next((path for path in candidates if (path / "flow.dag.yaml").is_file()), None)
        if folder is None:
            shipped = sorted(file.parent.name for file in paths.FLOWS.glob("*/flow.dag.yaml"))
            fix = f"Give a folder with a flow.dag.yaml, or one of {', '.join(shipped)}"
            fix += did_you_mean(flow.name, shipped)
            raise OpsError(f"{flow} is not a flow", fix)
        try:
            content = load_yaml(folder / "flow.dag.yaml")
            version = (content.get("tags") or {}).get("version")
            outputs = tuple(content.get("outputs") or ())
            return cls(folder, dict(content["inputs"]), list(content["nodes"]), version, outputs)
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"{folder / 'flow.dag.yaml'} is not a valid flow"
            raise OpsError(what, "Compare it with flows/qa/flow.dag.yaml.") from error

    @property
    def uses_connection(self) -> bool:
        """Whether a node has the input `connection`, or is an llm node, which has it elsewhere."""
        return any(_has_connection(node) for node in self.nodes)

    def connections(self, name: str) -> dict[str, dict[str, str]]:
        """Return promptflow's `connections` argument that gives this connection to every node with one.

        Raises:
            OpsError: no node uses a connection.
        """
        nodes = [node["name"] for node in self.nodes if _has_connection(node)]
        if not nodes:
            raise OpsError(f"no node of {self.folder} uses a connection", "Omit the connection.")
        return {node: {"connection": name} for node in nodes}

    def connection_names(self, overrides: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Return node -> name of its connection: from the overrides, or else from the flow.

        Args:
            overrides: node -> its overridden inputs, such as `{"connection": name}`.
        """
        names = {}
        for node in self.nodes:
            node_name = node.get("name", "")
            is_llm = node.get("type") == "llm"
            default = (node if is_llm else node.get("inputs") or {}).get("connection")
            connection = overrides.get(node_name, {}).get("connection", default)
            if isinstance(connection, str) and connection and not connection.startswith("${"):
                names[node_name] = connection
        return names

    def columns(
        self, mapping: Mapping[str, str], data: Collection[str], outputs: Collection[str] = ()
    ) -> dict[str, str]:
        """Return the complete column mapping of a run: input -> its source.

        The source is the given one, or else the base run's output of the same name, or else the data's
        column of the same name. An input without a source keeps its default only if another input
        varies: otherwise all lines would be the same.

        Args:
            mapping: input -> `${data.x}`, `${run.outputs.x}` or a constant.
            data: the columns of the data file.
            outputs: the outputs of the base run.

        Raises:
            OpsError: an input has no source, or the mapping names an unknown input or column.
        """
        if unknown := sorted(set(mapping) - set(self.inputs)):
            fix = f"Its inputs are {', '.join(self.inputs)}."
            raise OpsError(f"{self.folder} has no input {unknown[0]!r}", fix)
        for name, source in mapping.items():
            _require_column(name, source, "data", data)
            _require_column(name, source, "run.outputs", outputs)
        sources = dict(mapping)
        for name in self.inputs:
            if name not in mapping and name in outputs:
                sources[name] = f"${{run.outputs.{name}}}"
            elif name not in mapping and name in data:
                sources[name] = f"${{data.{name}}}"
        varies = any(value.startswith("${") for value in sources.values())
        for name, definition in self.inputs.items():
            if name not in sources and ("default" not in definition or not varies):
                columns = ", ".join(sorted(data)) or "none"
                fix = f"Map one: --column-mapping {name}='${{data.COLUMN}}'. Columns: {columns}."
                raise OpsError(f"the input {name!r} of {self.folder} has no column", fix)
        return sources


def _has_connection(node: Mapping[str, Any]) -> bool:
    return node.get("type") == "llm" or "connection" in (node.get("inputs") or {})


def _require_column(name: str, source: str, kind: str, columns: Collection[str]) -> None:
    """Raise OpsError if the source of an input is a column that does not exist.

    Args:
        name: name of the input.
        source: `${data.x}`, `${run.outputs.x}` or a constant.
        kind: `data` or `run.outputs`.
        columns: the columns of that kind.
    """
    match = re.fullmatch(rf"\$\{{{re.escape(kind)}\.([^{{}}]+)\}}", source)
    if not match or {match[1], re.split(r"[.\[]", match[1])[0]} & set(columns):
        return
    suggestion = did_you_mean(match[1], columns)
    fix = f"The columns are {', '.join(sorted(columns)) or 'none'}{suggestion}"
    raise OpsError(f"the input {name!r} is mapped to {source}, which does not exist", fix)
