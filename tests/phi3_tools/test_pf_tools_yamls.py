"""The YAML files of the tools: listed by promptflow, and the same as the functions."""

from __future__ import annotations

import inspect
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import pytest
from promptflow._core.tools_manager import collect_package_tools

from phi3_tools import pf_tools

TOOLS = pf_tools.list_package_tools()


TYPES = {str: "string", int: "int", float: "double", bool: "bool", list: "list", object: "object"}


def function(tool):
    return inspect.unwrap(getattr(pf_tools, tool["function"]))


def test_promptflow_lists_every_tool():
    listed = collect_package_tools()
    assert set(TOOLS) == {
        f"phi3_tools.pf_tools.phi3_{n}"
        for n in ("chat", "chat_detail", "prompt", "judge", "judge_pair")
    }
    assert set(TOOLS) <= set(listed)
    for tool in TOOLS:
        assert listed[tool]["package"] == "phi3-promptflow"


def kind(annotation):
    """Return prompt flow's name for the type of a parameter, without None."""
    is_union = get_origin(annotation) in (Union, UnionType)
    options = set(get_args(annotation)) if is_union else {annotation}
    (only,) = options - {type(None)}
    return TYPES[get_origin(only) or only]


@pytest.mark.parametrize("tool", TOOLS)
def test_inputs_are_the_functions_parameters(tool):
    parameters = dict(inspect.signature(function(TOOLS[tool])).parameters)
    takes_more = parameters.pop("kwargs", None)
    template = parameters.pop("prompt", None)
    assert bool(template) == bool(takes_more) == (TOOLS[tool]["type"] == "custom_llm")
    assert set(TOOLS[tool]["inputs"]) == set(parameters)


@pytest.mark.parametrize("tool", TOOLS)
def test_defaults_and_types_are_the_functions(tool):
    """The editor displays the defaults of the YAML; a run uses those of the function."""
    parameters = inspect.signature(function(TOOLS[tool])).parameters
    hints = get_type_hints(function(TOOLS[tool]))
    for name, spec in TOOLS[tool]["inputs"].items():
        parameter = parameters[name]
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        assert spec.get("default") == default, name
        assert type(spec.get("default")) is type(default), name
        if name == "connection":
            assert spec["type"] == ["CustomConnection"]
        else:
            assert spec["type"] == [kind(hints[name])], name
        assert spec["description"].endswith("."), name


@pytest.mark.parametrize("tool", TOOLS)
def test_the_other_fields_of_the_yaml(tool):
    spec = TOOLS[tool]
    assert tool == f"{spec['module']}.{spec['function']}"
    assert spec["name"]
    assert spec["description"]
    for icon in spec["icon"].values():
        assert icon.startswith("data:image/png;base64,")
    assert ("stream" in spec["inputs"]) == (spec["function"] in ("phi3_chat", "phi3_prompt"))
