"""llm nodes for an export: they call a hosted model, and can become nodes of the tool phi3_prompt."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..flows import copy_flow, read_dag_file, write_dag_file

TOOL = "phi3_tools.pf_tools.phi3_prompt"
CONNECTION = "phi3"
# Input of an llm node -> input of the tool.
_PARAMETERS = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop",
    "seed": "seed",
}
# Inputs that name the hosted model, or that have no effect with these values.
_MODEL_INPUTS = ("deployment_name", "model")
_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "presence_penalty": (0, None, ""),
    "frequency_penalty": (0, None, ""),
    "logit_bias": (None, "", {}),
    "functions": (None, "", []),
    "function_call": (None, ""),
    "tools": (None, "", []),
    "tool_choice": (None, ""),
    "response_format": (None, "", {"type": "text"}),
}


@contextmanager
def with_llm_nodes_replaced(folder: Path, llm: str | None) -> Iterator[Path]:
    """Yield the flow's folder, or a copy whose llm nodes are nodes of the tool phi3_prompt.

    Args:
        folder: the flow's folder.
        llm: `phi3`, or None to refuse llm nodes.

    Raises:
        OpsError: the flow has an llm node and `llm` is None, or the tool cannot do what a node asks for.
    """
    content = read_dag_file(folder / "flow.dag.yaml")
    nodes = [node for node in _nodes(content) if node.get("type") == "llm"]
    if not nodes:
        yield folder
        return
    if llm is None:
        what = f"node {nodes[0].get('name')!r} is an llm node, which calls a hosted model"
        raise OpsError(what, "Use --llm phi3 to let your Phi-3 answer instead.")
    for node in nodes:
        _replace(node)
    with tempfile.TemporaryDirectory(prefix="phi3-export-") as parent:
        copy = copy_flow(folder, Path(parent) / folder.resolve().name)
        write_dag_file(copy / "flow.dag.yaml", content)
        yield copy


def _nodes(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the definitions of all nodes, also those in variants."""
    yield from content.get("nodes") or []
    for name, variants in (content.get("node_variants") or {}).items():
        for variant in (variants.get("variants") or {}).values():
            variant["node"].setdefault("name", name)
            yield variant["node"]


def _replace(node: dict[str, Any]) -> None:
    name = node.get("name")
    if node.get("api", "chat") != "chat":
        what = f"node {name!r} uses the API {node['api']!r}, and phi3_prompt has only chats"
        raise OpsError(what, "Write its prompt as a chat, with `api: chat`.")
    inputs: dict[str, Any] = {"connection": CONNECTION}
    for key, value in (node.get("inputs") or {}).items():
        if key in _PARAMETERS:
            inputs[_PARAMETERS[key]] = value
        elif key in _WITHOUT_EFFECT:
            if value not in _WITHOUT_EFFECT[key]:
                what = f"node {name!r} sets {key}, which phi3_prompt does not have"
                raise OpsError(what, f"Remove {key} from the node.")
        elif key not in _MODEL_INPUTS:
            inputs[key] = value  # a variable of the prompt
    path = (node.get("source") or {}).get("path")
    for key in ("provider", "connection", "api", "module"):
        node.pop(key, None)
    node |= {
        "type": "custom_llm",
        "source": {"type": "package_with_prompt", "tool": TOOL, "path": path},
        "inputs": inputs,
    }
