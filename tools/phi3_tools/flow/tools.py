"""Loads the tools of a flow's nodes: Python files, package tools, and prompts."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from .decorators import STREAMING_OPTION, is_tool
from .errors import FlowError
from .flow_files import in_flow_folder
from .model import LLM_TOOL, PACKAGE, PROMPT, Flow, Node
from .parameters import (
    ConnectionLookup,
    convert_literals,
    declared_parameters,
    parameters_of,
)
from .prompts import render_function, template_variables
from .references import Assignment, Literal
from .shim import load_metric_logger, loading_by_engine

MODULE_NAME = "__pf_main__"  # as in promptflow, so that tools can tell how they run
OWN_TOOLS = "phi3_tools."
# The inputs of an llm node, besides the variables of its prompt: those of promptflow-tools.
_LLM_INPUTS = {
    "connection": ["CustomConnection", "AzureOpenAIConnection", "OpenAIConnection"],
    "deployment_name": "string",
    "model": "string",
    "temperature": "double",
    "top_p": "double",
    "max_tokens": "int",
    "stop": "list",
    "seed": "int",
    "presence_penalty": "double",
    "frequency_penalty": "double",
    "logit_bias": "object",
    "response_format": "object",
    **dict.fromkeys(("functions", "function_call", "tools", "tool_choice"), "object"),
}
_loading = threading.Lock()  # the working directory and `sys.path` belong to the process
_flow_folders: set[Path] = set()  # folders of the flows that were loaded


@dataclass(frozen=True)
class Tool:
    """A loaded tool of a node.

    Attributes:
        node: the node.
        function: what is called with the inputs as keyword arguments.
        inputs: the node's inputs, with converted literals.
        is_async: whether it is called in an event loop.
        defaults: names of the parameters that have a default.
        streaming_option: the parameter that switches streaming on, or None.
    """

    node: Node
    function: Callable[..., Any]
    inputs: Mapping[str, Assignment]
    is_async: bool
    defaults: frozenset[str]
    streaming_option: str | None = None


def load_tools(flow: Flow, connections: ConnectionLookup) -> list[Tool]:
    """Load the tools of all nodes of a flow.

    Raises:
        FlowError: a tool does not exist, cannot be imported, or cannot take its literal inputs.
    """
    packages = {node.tool for node in flow.nodes if node.tool}
    definitions = _package_tools(packages)
    with _loading, _working_in(flow.folder), loading_by_engine():
        return [_load(flow, node, definitions, connections) for node in flow.nodes]


def _load(
    flow: Flow,
    node: Node,
    definitions: Mapping[str, Mapping[str, Any]],
    connections: ConnectionLookup,
) -> Tool:
    if node.kind == PROMPT:
        template = _prompt_text(flow, node)
        return Tool(node, render_function(node, template), node.inputs, False, frozenset())
    if node.kind == PACKAGE:
        return _load_package_tool(flow, node, definitions, connections)
    function, owner = _tool_function(node, _import_file(flow, node))
    init_parameters = parameters_of(owner.__init__) if owner else {}
    parameters = parameters_of(function) | init_parameters
    inputs = convert_literals(node, parameters, connections)
    if owner:
        function, inputs = _bound(node, owner, function.__name__, inputs, init_parameters)
    return _tool(node, function, inputs)


def _tool(node: Node, function: Callable[..., Any], inputs: Mapping[str, Assignment]) -> Tool:
    original = getattr(function, "__original_function", function)
    is_async = inspect.iscoroutinefunction(original) or inspect.isasyncgenfunction(original)
    parameters = inspect.signature(function).parameters
    defaults = {name for name, each in parameters.items() if each.default is not each.empty}
    option = getattr(function, STREAMING_OPTION, None)
    option = option if option in parameters else None
    return Tool(node, function, inputs, is_async, frozenset(defaults), option)


# -- Python files ----------------------------------------------------------------------------------


def _import_file(flow: Flow, node: Node) -> ModuleType:
    path = flow.folder / str(node.path)
    if not path.is_file():
        fix = "correct the path, which is relative to the flow's folder"
        raise _load_error(node, "source.path", f"{node.path} does not exist", fix)
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path.resolve())
    if spec is None or spec.loader is None:
        raise _load_error(
            node, "source.path", f"{node.path} is not a Python file", "name a .py file"
        )
    module = importlib.util.module_from_spec(spec)
    try:
        _execute(module, spec.loader)
    except Exception as error:
        reason = f"{node.path} cannot be imported: {type(error).__name__}: {error}"
        raise _load_error(node, "source.path", reason, _import_fix(error)) from error
    return module


def _execute(module: ModuleType, loader: Any) -> None:
    """Run a module's code. Without promptflow its imports of promptflow are taken from this package."""
    from .imports import compile_without_promptflow, promptflow_is_installed

    path = Path(str(module.__file__))
    source = path.read_bytes()
    if not promptflow_is_installed():
        exec(compile_without_promptflow(source, path), module.__dict__)  # noqa: S102
        return
    if b"promptflow" in source and b"log_metric" in source:
        load_metric_logger()
    loader.exec_module(module)


def _import_fix(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("promptflow"):
        return "import `tool`, `trace` and `log_metric` from phi3_tools.flow"
    if isinstance(error, ModuleNotFoundError):
        return f"install the package that contains {error.name}"
    return "correct the file"


def _tool_function(node: Node, module: ModuleType) -> tuple[Callable[..., Any], Any]:
    """Return the tool of a module, and its class if it is a method."""
    members = [value for _, value in inspect.getmembers(module)]
    functions = [m for m in members if is_tool(m) and m.__module__ == MODULE_NAME]
    methods = [
        (method, owner)
        for owner in members
        if inspect.isclass(owner)
        and owner.__module__ == MODULE_NAME
        and hasattr(owner, "get_initialize_inputs")
        for _, method in inspect.getmembers(owner)
        if is_tool(method)
    ]
    tools = [*((function, None) for function in functions), *methods]
    if len(tools) != 1:
        names = ", ".join(function.__name__ for function, _ in tools) or "none"
        reason = f"{node.path} must have exactly one tool, but has {names}"
        raise _load_error(node, "source.path", reason, "mark one function with @tool")
    return tools[0]


def _bound(
    node: Node,
    owner: Any,
    method: str,
    inputs: Mapping[str, Assignment],
    init_parameters: Mapping[str, Any],
) -> tuple[Callable[..., Any], dict[str, Assignment]]:
    """Return the method of a new instance, and the inputs that are not the constructor's."""
    arguments = {}
    for name, assignment in inputs.items():
        if name in init_parameters:
            if not isinstance(assignment, Literal):
                reason = f"{name} is an argument of {owner.__name__}(), which needs a literal"
                raise _load_error(node, f"inputs.{name}", reason, "write the value in the flow")
            arguments[name] = assignment.value
    try:
        function = getattr(owner(**arguments), method)
    except Exception as error:
        reason = f"{owner.__name__}() failed: {type(error).__name__}: {error}"
        raise _load_error(node, "inputs", reason, "correct its arguments") from error
    return function, {name: each for name, each in inputs.items() if name not in init_parameters}


# -- package tools ---------------------------------------------------------------------------------


def _package_tools(ids: set[str]) -> dict[str, Mapping[str, Any]]:
    """Return tool id -> definition, for the wanted tools of the installed packages."""
    tools: dict[str, Mapping[str, Any]] = {}
    if not ids:
        return tools
    if any(tool.startswith(OWN_TOOLS) for tool in ids):
        tools.update(importlib.import_module("phi3_tools.pf_tools").list_package_tools())
    if LLM_TOOL in ids:
        module, _, function = LLM_TOOL.rpartition(".")
        inputs = {name: {"type": value_type} for name, value_type in _LLM_INPUTS.items()}
        tools[LLM_TOOL] = {"module": module, "function": function, "inputs": inputs}
    if ids - set(tools):
        for entry_point in metadata.entry_points(group="package_tools"):
            if not entry_point.value.startswith(OWN_TOOLS):
                _add_tools(entry_point, tools)
    return {
        name: tool
        for key, tool in tools.items()
        for name in (key, *tool.get("deprecated_tools", []))
    }


def _add_tools(entry_point: metadata.EntryPoint, tools: dict[str, Mapping[str, Any]]) -> None:
    try:
        tools.update(entry_point.load()())
    except Exception as error:
        # Another package's fault does not concern the flow, unless it uses that package's tools.
        import logging

        name = entry_point.name
        logging.getLogger("phi3_tools").warning("the tools of %s cannot be listed: %s", name, error)


def _load_package_tool(
    flow: Flow,
    node: Node,
    definitions: Mapping[str, Mapping[str, Any]],
    connections: ConnectionLookup,
) -> Tool:
    definition = definitions.get(str(node.tool))
    if definition is None:
        fix = "install the package that contains it, or correct the name"
        raise _load_error(node, "source.tool", f"the tool {node.tool} is not installed", fix)
    parameters = declared_parameters(definition.get("inputs") or {})
    inputs = convert_literals(node, parameters, connections)
    try:
        module = importlib.import_module(definition["module"])
        owner = (
            getattr(module, definition["class_name"]) if definition.get("class_name") else module
        )
        function = getattr(owner, definition["function"])
    except Exception as error:
        reason = f"{node.tool} cannot be imported: {type(error).__name__}: {error}"
        raise _load_error(node, "source.tool", reason, _import_fix(error)) from error
    if owner is not module:
        init = parameters_of(owner.__init__)  # type: ignore[misc]
        function, inputs = _bound(node, owner, definition["function"], inputs, init)
    if str(node.tool).startswith(OWN_TOOLS):
        function = in_flow_folder(function, flow.folder)
    if node.path is None:
        return _tool(node, function, inputs)
    return _tool(node, _with_prompt(flow, node, function, parameters), inputs)


def _with_prompt(
    flow: Flow, node: Node, function: Callable[..., Any], parameters: Mapping[str, Any]
) -> Callable[..., Any]:
    """Return a tool that gets the node's prompt."""
    template = _prompt_text(flow, node)
    repeated = sorted(set(template_variables(node, template)) & set(parameters))
    if repeated:
        reason = f"the prompt has the variable {repeated[0]!r}, which is an input of the tool"
        raise _load_error(node, "source.path", reason, "rename the variable")
    annotations = inspect.signature(function).parameters.items()
    names = [name for name, each in annotations if _is_prompt(each.annotation)]
    if not names:
        reason = f"{node.tool} has no parameter of type PromptTemplate"
        raise _load_error(node, "source.tool", reason, "choose a tool that takes a prompt")
    with_prompt = partial(function, **{names[0]: template})
    option = getattr(function, STREAMING_OPTION, None)
    if option:
        setattr(with_prompt, STREAMING_OPTION, option)
    return with_prompt


def _is_prompt(annotation: Any) -> bool:
    return bool(getattr(annotation, "__name__", annotation) == "PromptTemplate")


def _prompt_text(flow: Flow, node: Node) -> str:
    try:
        return (flow.folder / str(node.path)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = f"{node.path} cannot be read: {getattr(error, 'strerror', None) or error}"
        fix = "correct the path, which is relative to the flow's folder"
        raise _load_error(node, "source.path", reason, fix) from error


def _load_error(node: Node, field: str, reason: str, fix: str) -> FlowError:
    return FlowError(reason, fix, node=node.name, field=field, code="ResolveToolError")


# -- the process -----------------------------------------------------------------------------------


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Work in a flow's folder, which stays first on `sys.path` for later imports."""
    _forget_other_flows(folder)
    path = str(folder)
    if sys.path[:1] != [path]:
        sys.path[:] = [path, *(each for each in sys.path if each != path)]
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _forget_other_flows(folder: Path) -> None:
    """Remove imported modules of other flows that have the name of a file or folder of this flow."""
    _flow_folders.add(folder)
    others = _flow_folders - {folder}
    for entry in folder.iterdir():
        file = getattr(sys.modules.get(entry.stem), "__file__", None)
        if file and others & {Path(file).parent, Path(file).parent.parent}:
            del sys.modules[entry.stem]
