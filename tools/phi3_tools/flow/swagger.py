"""The OpenAPI document of a served flow, as `pf flow serve` writes it."""

from __future__ import annotations

import json
from typing import Any

from .model import Flow, FlowInput, FlowOutput

JSON_TYPES = {
    "int": "integer",
    "double": "number",
    "bool": "boolean",
    "string": "string",
    "list": "array",
    "object": "object",
}
FEEDBACK = {
    "post": {
        "summary": "collect promptflow feedback",
        "requestBody": {
            "description": "promptflow feedback data",
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "object", "additionalProperties": {}}}
            },
        },
        "responses": {
            "200": {
                "description": "successful operation",
                "content": {
                    "application/json": {"schema": {"type": "object", "additionalProperties": {}}}
                },
            },
            "400": {"description": "Invalid input"},
            "default": {"description": "unexpected error"},
        },
    },
    "parameters": [
        {
            "name": "flatten",
            "in": "query",
            "description": "flatten the feedback data into traced data",
            "required": False,
            "schema": {"type": "boolean"},
        }
    ],
}


def swagger(flow: Flow) -> dict[str, Any]:
    """Return the OpenAPI document of a served flow."""
    return {
        "openapi": "3.0.0",
        "info": _info(flow),
        "components": {"securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}}},
        "security": [{"bearerAuth": []}],
        "paths": {"/score": {"post": _score(flow)}, "/feedback": FEEDBACK},
    }


def _info(flow: Flow) -> dict[str, str]:
    info = {"title": f"Promptflow[{flow.name}] API", "version": "1.0.0", "x-flow-name": flow.name}
    if flow.chat_input:
        info |= {"x-chat-input": flow.chat_input, "x-flow-type": "chat"}
    if flow.chat_history:
        info["x-chat-history"] = flow.chat_history
    if flow.chat_output:
        info["x-chat-output"] = flow.chat_output
    return info


def _score(flow: Flow) -> dict[str, Any]:
    inputs: dict[str, Any] = {"type": "object"}
    if flow.inputs:
        inputs["properties"] = {name: _input(item) for name, item in flow.inputs.items()}
        inputs["required"] = list(flow.inputs)
    outputs: dict[str, Any] = {"type": "object"}
    if flow.outputs:
        outputs["properties"] = {name: _schema(item) for name, item in flow.outputs.items()}
    body = {"schema": inputs, "example": _example(flow)}
    return {
        "summary": f"run promptflow: {flow.name} with an given input",
        "requestBody": {
            "description": "promptflow input data",
            "required": bool(flow.inputs),
            "content": {"application/json": body},
        },
        "responses": {
            "200": {
                "description": "successful operation",
                "content": {"application/json": {"schema": outputs}},
            },
            "400": {"description": "Invalid input"},
            "default": {"description": "unexpected error"},
        },
    }


def _input(item: FlowInput) -> dict[str, Any]:
    schema = _schema(item)
    if item.default:
        schema["default"] = item.default
    return schema


def _schema(item: FlowInput | FlowOutput) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": JSON_TYPES.get(item.type, "object")}
    if item.description:
        schema["description"] = item.description
    if item.type == "object":
        schema["additionalProperties"] = {}
    if item.type == "list":
        schema["items"] = {"type": "object", "additionalProperties": {}}
    return schema


def _example(flow: Flow) -> Any:
    """Return the first request of `samples.json`, if the flow has this file."""
    try:
        samples = json.loads((flow.folder / "samples.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return samples[0] if isinstance(samples, list) and samples else {}
