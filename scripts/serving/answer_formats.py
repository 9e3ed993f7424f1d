"""Reads which form a request's answer must have: `response_format`, `tools` and `tool_choice`.

Source: "OpenAI API reference: chat completions".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conversations import check_unicode
from parameters import describe, refuse, refuse_unknown, shorten
from schema_checks import COMBINING, MAPS_OF_SCHEMAS, check_schema, has_combined_schemas

RESPONSE_TYPES = ("text", "json_object", "json_schema")
TOOL_CHOICES = ("none", "auto", "required")
MAX_TOOLS = 128
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
SCHEMA_FIELD = "response_format.json_schema.schema"
# Keywords that can allow properties beside those in `properties`.
OPEN_ENDED = (
    *("$ref", "anyOf", "allOf", "oneOf", "patternProperties", "additionalProperties"),
    *("minProperties", "propertyNames", "dependentRequired", "dependentSchemas"),
    *("unevaluatedProperties", "if", "not", "const", "enum"),
)
# Keywords whose schemas can be limited as well, unless the schema combines schemas.
BRANCHES = ("$defs", "definitions", "anyOf", "allOf", "additionalProperties")


@dataclass(frozen=True)
class Tool:
    """A function that the model can call.

    Attributes:
        name: name of the function.
        schema: JSON schema of the arguments.
        definition: the tool as the client has sent it, which the prompt contains.
        field: name of the tool's field in the request.
    """

    name: str
    schema: Mapping[str, Any]
    definition: Mapping[str, Any]
    field: str


@dataclass(frozen=True)
class AnswerFormat:
    """The form that an answer must have.

    Attributes:
        schema: JSON schema of the answer's text; None for any text.
        schema_field: name of the field of the request that has asked for JSON.
        tools: tools that the model can call, or must call one of.
        offered_tools: tools that the prompt contains.
        must_call: whether the answer must be a call, not text.
        many_calls: whether the answer can have more than one call.
    """

    schema: Mapping[str, Any] | None = None
    schema_field: str = ""
    tools: tuple[Tool, ...] = ()
    offered_tools: tuple[Mapping[str, Any], ...] = ()
    must_call: bool = False
    many_calls: bool = True

    @property
    def is_free(self) -> bool:
        """Whether any text is an answer."""
        return self.schema is None and not self.tools


def read_answer_format(values: Mapping[str, Any]) -> AnswerFormat:
    """Return the form of the answer that a request's parameters ask for.

    Args:
        values: the parameters of a request, see `parameters.read_parameters`.

    Raises:
        ScoringError: status 400, with the name of the field that is wrong.
    """
    schema, schema_field = _read_response_format(values["response_format"])
    tools = tuple(_read_tool(tool, f"tools[{index}]") for index, tool in enumerate(values["tools"]))
    if len(tools) > MAX_TOOLS:
        refuse(f"tools has {len(tools)} tools; a request may have up to {MAX_TOOLS}", "tools")
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            field = f"tools[{index}].function.name"
            refuse(f"{field} is {name}, but another tool is also named {name}", field)
    choice = values["tool_choice"]
    callable_tools, must_call = _read_tool_choice(choice, tools)
    return AnswerFormat(
        schema=schema,
        schema_field=schema_field,
        tools=callable_tools,
        offered_tools=tuple(tool.definition for tool in tools) if callable_tools else (),
        must_call=must_call,
        many_calls=values["parallel_tool_calls"] and not isinstance(choice, dict),
    )


def _read_response_format(value: Any) -> tuple[Mapping[str, Any] | None, str]:
    """Return the schema of the answer, and the name of the field that determines it."""
    kind = value.get("type")
    if kind not in RESPONSE_TYPES:
        known = ", ".join(RESPONSE_TYPES)
        refuse(f"response_format.type must be one of {known}", "response_format.type")
    known_fields = ("type", "json_schema") if kind == "json_schema" else ("type",)
    refuse_unknown(value, known_fields, "response_format.")
    if kind == "text":
        return None, ""
    if kind == "json_object":
        return {"type": "object"}, "response_format"
    holder, name = value.get("json_schema"), "response_format.json_schema"
    if not isinstance(holder, dict):
        refuse(f"{name} must be an object with name and schema, not {describe(holder)}", name)
    refuse_unknown(holder, ("name", "description", "schema", "strict"), f"{name}.")
    for text in ("name", "description"):
        if not isinstance(holder.get(text, ""), str | None):
            refuse(f"{name}.{text} must be a string", f"{name}.{text}")
    schema = holder.get("schema")
    check_schema(schema, SCHEMA_FIELD)
    return _without_inventions(schema), SCHEMA_FIELD


def _read_tool(value: Any, name: str) -> Tool:
    if not isinstance(value, dict):
        refuse(f"{name} must be an object with type and function, not {describe(value)}", name)
    if value.get("type") != "function":
        refuse(f'{name}.type must be "function"', f"{name}.type")
    refuse_unknown(value, ("type", "function"), f"{name}.")
    function, name = value.get("function"), f"{name}.function"
    if not isinstance(function, dict):
        refuse(f"{name} must be an object with a name, not {describe(function)}", name)
    refuse_unknown(function, ("name", "description", "parameters", "strict"), f"{name}.")
    function_name = function.get("name")
    if not isinstance(function_name, str) or not TOOL_NAME.match(function_name):
        refuse(f"{name}.name must be 1 to 64 letters, digits, _ or -", f"{name}.name")
    if not isinstance(function.get("description", ""), str | None):
        refuse(f"{name}.description must be a string", f"{name}.description")
    field = f"{name}.parameters"
    schema = _arguments_schema(function.get("parameters"), field)
    check_unicode(json.dumps(value, ensure_ascii=False), name)
    return Tool(function_name, schema, value, field)


def _arguments_schema(parameters: Any, field: str) -> Mapping[str, Any]:
    """Return the schema of a function's arguments. Without one, the function has no arguments."""
    if parameters is None:
        parameters = {}
    else:
        check_schema(parameters, field)
    if parameters.get("type", "object") != "object":
        refuse(f'{field}.type must be "object"', f"{field}.type")
    no_arguments = {} if parameters.keys() & set(COMBINING) else {"properties": {}}
    return _without_inventions({**no_arguments, **parameters, "type": "object"})


def _without_inventions(schema: Any) -> Any:
    """Return a schema whose objects have no other properties than the listed ones.

    A model that has not been told to leave an object open could invent properties without end. Objects
    that need other properties, and schemas that are combined with others, stay as they are.
    """
    return _close_objects(schema, () if has_combined_schemas(schema) else BRANCHES)


def _close_objects(schema: Any, branches: tuple[str, ...]) -> Any:
    """Return a schema with closed objects. `branches` are keywords whose schemas are closed, too."""
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    for keyword in ("items", "prefixItems", *branches):
        value = schema.get(keyword)
        if isinstance(value, list):
            closed[keyword] = [_close_objects(branch, branches) for branch in value]
        elif isinstance(value, dict) and keyword in MAPS_OF_SCHEMAS:
            closed[keyword] = {name: _close_objects(part, branches) for name, part in value.items()}
        elif isinstance(value, dict):
            closed[keyword] = _close_objects(value, branches)
    properties = schema.get("properties")
    if isinstance(properties, dict) and not any(keyword in schema for keyword in OPEN_ENDED):
        closed["properties"] = {
            name: _close_objects(value, branches) for name, value in properties.items()
        }
        if set(schema.get("required", ())) <= set(properties):
            closed["additionalProperties"] = False
    return closed


def _read_tool_choice(value: Any, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], bool]:
    """Return the tools that the answer can call, and whether it must call one of them."""
    if value is None:
        value = "auto" if tools else "none"
    if isinstance(value, dict):
        return (_named_tool(value, tools),), True
    if value not in TOOL_CHOICES:
        known = ", ".join(TOOL_CHOICES)
        refuse(f"tool_choice must be one of {known}, or an object with a function", "tool_choice")
    if value == "required" and not tools:
        refuse("tool_choice is required, but the request has no tools", "tool_choice")
    return (() if value == "none" else tools), value == "required"


def _named_tool(value: Mapping[str, Any], tools: tuple[Tool, ...]) -> Tool:
    if value.get("type") != "function":
        refuse('tool_choice.type must be "function"', "tool_choice.type")
    refuse_unknown(value, ("type", "function"), "tool_choice.")
    function = value.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    for tool in tools:
        if tool.name == name:
            return tool
    field = "tool_choice.function.name"
    quoted = repr(shorten(name)) if isinstance(name, str) else describe(name)
    refuse(f"{field} must be the name of one of the tools, not {quoted}", field)
