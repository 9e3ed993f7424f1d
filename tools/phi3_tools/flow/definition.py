"""Reads a flow.dag.yaml into dataclasses, and refuses what the engine cannot run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import FlowError
from .flow_files import flow_folder, read_flow_file
from .graph import check_graph
from .model import LLM_TOOL, PACKAGE, PROMPT, PYTHON, Activate, Flow, FlowInput, FlowOutput, Node
from .references import Literal, parse_assignment
from .values import UNSUPPORTED_TYPES, VALUE_TYPES

_SOURCE_FIELDS = {"code": "path", "package": "tool", "package_with_prompt": "tool"}


def load_flow(path: str | Path, variant: str | None = None) -> Flow:
    """Read a flow.

    Args:
        path: a flow's folder, or its YAML file.
        variant: `node.variant_id` or promptflow's `${node.variant_id}`; other nodes take their default.

    Raises:
        FlowError: the file does not exist, or the engine cannot run the flow.
    """
    file = Path(path) / "flow.dag.yaml" if Path(path).is_dir() else Path(path)
    content = read_flow_file(file)
    _refuse_other_kinds(content, file)
    inputs = {name: _input(name, item) for name, item in _section(content, "inputs").items()}
    outputs = {name: _output(name, item) for name, item in _section(content, "outputs").items()}
    nodes = [_node(item) for item in _chosen_nodes(content, variant)]
    order = check_graph(nodes, inputs, outputs)
    aggregations = {node.name for node in nodes if node.aggregation}
    return Flow(
        name=file.resolve().parent.name,
        folder=flow_folder(file, content),
        file=file,
        inputs=inputs,
        outputs={
            name: output
            for name, output in outputs.items()
            if getattr(output.reference, "node", None) not in aggregations
        },
        nodes=tuple(order),
        variant=_variant_name(variant) if variant else None,
        variants=_variant_ids(content),
        type=str(content.get("type") or "standard"),
        environment=_section(content, "environment"),
        environment_variables=_section(content, "environment_variables"),
        content=content,
    )


def _refuse_other_kinds(content: Mapping[str, Any], file: Path) -> None:
    language = content.get("language", "python")
    if language != "python":
        raise FlowError(f"the language is {language}", "use Python nodes", field="language")
    if "entry" in content:
        fix = "write it as a flow with nodes"
        raise FlowError(f"{file} is a flex flow", fix, field="entry", code="NotSupported")
    if not content.get("nodes"):
        raise FlowError(f"{file} has no nodes", "add a node", field="nodes")


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name) or {}
    if not isinstance(section, dict):
        raise FlowError(f"it is not a mapping: {section!r}", "write names and values", field=name)
    return section


def _input(name: str, item: Any) -> FlowInput:
    value_type = _type(item, f"inputs.{name}")
    return FlowInput(
        name,
        value_type,
        item.get("default"),
        str(item.get("description") or ""),
        bool(item.get("is_chat_input")),
        bool(item.get("is_chat_history")),
    )


def _output(name: str, item: Any) -> FlowOutput:
    value_type = _type(item, f"outputs.{name}")
    reference = parse_assignment(item.get("reference", ""))
    if reference == Literal(""):
        field_name = f"outputs.{name}.reference"
        fix = "refer to a node, for example ${answer.output}"
        raise FlowError(
            "the reference is missing", fix, field=field_name, code="EmptyOutputReference"
        )
    description = str(item.get("description") or "")
    return FlowOutput(name, value_type, reference, description, bool(item.get("is_chat_output")))


def _type(item: Any, field_name: str) -> str:
    value_type = item.get("type") if isinstance(item, dict) else None
    where = f"{field_name}.type"
    if value_type in UNSUPPORTED_TYPES:
        fix = "use promptflow's engine for it"
        raise FlowError(
            f"the type {value_type} is not supported", fix, field=where, code="NotSupported"
        )
    if value_type not in VALUE_TYPES:
        fix = f"use one of {', '.join(VALUE_TYPES)}"
        raise FlowError(
            f"the type {value_type!r} does not exist", fix, field=where, code="ValueError"
        )
    return str(value_type)


def _node(item: Mapping[str, Any]) -> Node:
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise FlowError("a node has no name", "give every node a `name`", field="nodes")
    kind, path, tool = _source(name, item)
    inputs = item.get("inputs") or {}
    if not isinstance(inputs, dict):
        raise FlowError("it is not a mapping", "write names and values", node=name, field="inputs")
    if item.get("type") == "llm":
        inputs = {"connection": item["connection"], **inputs}
    return Node(
        name=name,
        kind=kind,
        path=path,
        tool=tool,
        inputs={str(key): parse_assignment(value) for key, value in inputs.items()},
        activate=_activate(name, item),
        aggregation=bool(item.get("aggregation") or item.get("reduce")),
    )


def _source(name: str, item: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Return kind, path and package tool of a node."""
    node_type, source = str(item.get("type")), item.get("source")
    if node_type == "llm":
        _check_llm(name, item)
    if not isinstance(source, dict):
        fix = "add `source` with `type` and `path`, or a variant of the node"
        raise FlowError(
            "the source is missing", fix, node=name, field="source", code="ResolveToolError"
        )
    source_type = source.get("type", "code")
    kinds = {
        ("python", "code"): PYTHON,
        ("python", "package"): PACKAGE,
        ("custom_llm", "package_with_prompt"): PACKAGE,
        ("llm", "code"): PACKAGE,
        ("prompt", source_type): PROMPT,
    }
    kind = kinds.get((node_type, source_type))
    if kind is None:
        fix = "use a python, prompt or package tool node"
        reason = (
            f"nodes of type {node_type!r} with a source of type {source_type!r} are not supported"
        )
        raise FlowError(reason, fix, node=name, field="type", code="ResolveToolError")
    has_path = kind == PROMPT or node_type == "llm"
    needed = "path" if has_path else _SOURCE_FIELDS.get(source_type, "path")
    if not source.get(needed):
        fix = f"add `{needed}` to the source"
        reason = f"`{needed}` is missing"
        raise FlowError(reason, fix, node=name, field=f"source.{needed}", code="ResolveToolError")
    tool = LLM_TOOL if node_type == "llm" else source.get("tool")
    return kind, source.get("path"), tool if kind == PACKAGE else None


def _check_llm(name: str, item: Mapping[str, Any]) -> None:
    """Refuse an llm node without a connection, or of another API than chats."""
    if not item.get("connection"):
        fix = "add `connection` with the name of a connection"
        reason = "the connection is missing"
        raise FlowError(reason, fix, node=name, field="connection", code="ResolveToolError")
    if item.get("api", "chat") != "chat":
        fix = "write its prompt as a chat, with `api: chat`"
        reason = f"the API {item['api']!r} is not supported"
        raise FlowError(reason, fix, node=name, field="api", code="ResolveToolError")


def _activate(name: str, item: Mapping[str, Any]) -> Activate | None:
    if "activate" not in item:
        return None
    condition = item["activate"]
    if not isinstance(condition, dict) or not {"when", "is"} <= set(condition):
        fix = "write `when: ${node.output}` and `is: VALUE`"
        raise FlowError("the condition is not complete", fix, node=name, field="activate")
    return Activate(parse_assignment(condition["when"]), condition["is"])


def _variant_name(variant: str) -> str:
    return variant[2:-1] if variant.startswith("${") and variant.endswith("}") else variant


def _variant_ids(content: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    ids = {}
    for node, item in _section(content, "node_variants").items():
        default = item.get("default_variant_id")
        names = [str(name) for name in item.get("variants") or {}]
        ids[str(node)] = tuple(sorted(names, key=lambda name: name != default))
    return ids


def resolve_variants(content: Mapping[str, Any], variant: str | None = None) -> dict[str, Any]:
    """Return the content of a flow.dag.yaml with one variant of each node, and without `node_variants`.

    Args:
        content: the content of the file.
        variant: as in `load_flow`.

    Raises:
        FlowError: the variant does not exist.
    """
    others = {name: value for name, value in content.items() if name != "node_variants"}
    return {**others, "nodes": _chosen_nodes(content, variant)}


def _chosen_nodes(content: Mapping[str, Any], variant: str | None) -> list[dict[str, Any]]:
    """Return the nodes' definitions, with the default or the chosen variant of each."""
    all_variants = _section(content, "node_variants")
    chosen_node, _, chosen_id = _variant_name(variant or "").partition(".")
    known = [f"{node}.{name}" for node, names in _variant_ids(content).items() for name in names]
    if variant and f"{chosen_node}.{chosen_id}" not in known:
        fix = f"choose one of {', '.join(known)}" if known else "omit the variant"
        raise FlowError(f"the variant {variant} does not exist", fix, field="node_variants")
    nodes = []
    for item in content["nodes"]:
        if not isinstance(item, dict):
            raise FlowError("a node is not a mapping", "write `- name: …`", field="nodes")
        name = str(item.get("name"))
        if (variant and name == chosen_node) or item.get("use_variants"):
            variants = all_variants.get(name) or {}
            wanted = chosen_id if name == chosen_node else variants.get("default_variant_id")
            variant_item = (variants.get("variants") or {}).get(wanted)
            item = {**variant_item["node"], "name": name} if variant_item else item
        nodes.append(item)
    return nodes
