"""What the OpenAPI document of a served flow says about `/feedback` while feedback is stored."""

from __future__ import annotations

import json
from typing import Any

from ..feedback import KINDS, MAX_COMMENT
from ..pf import App, Scope
from .feedback import BODY_FIELDS

DOCUMENT = "/swagger.json"


class FeedbackDescribed:
    """ASGI middleware that describes `/feedback` in the OpenAPI document of a flow's app.

    Args:
        app: the flow's app.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        is_document = scope["type"] == "http" and scope["path"].endswith(DOCUMENT)
        await self._app(scope, receive, _described(send) if is_document else send)


def _described(send: Any) -> Any:
    """Return a `send` that replaces the description of `/feedback` in a complete document."""
    start: Any = None
    body = bytearray()

    async def send_described(message: Any) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        body.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        content = bytes(body)
        if start["status"] == 200:
            document = json.loads(content)
            document["paths"]["/feedback"] = feedback_schema()
            content = json.dumps(document, ensure_ascii=False).encode()
        headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
        headers.append((b"content-length", str(len(content)).encode()))
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return send_described


def feedback_schema() -> dict[str, Any]:
    """Return the description of `/feedback`."""
    role = {"type": "string", "enum": ["user", "assistant"]}
    message = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": role, "content": {"type": "string"}},
    }
    properties = {
        **{name: {"type": "string"} for name in BODY_FIELDS},
        "kind": {"type": "string", "enum": list(KINDS)},
        "comment": {"type": "string", "maxLength": MAX_COMMENT},
        "turn": {"type": "integer", "minimum": 1},
        "history": {"type": "array", "items": message},
    }
    of_a_kind = {
        "type": "object",
        "required": ["kind"],
        "properties": properties,
        "additionalProperties": False,
    }
    of_another_form = {"type": "object", "not": {"required": ["kind"]}}
    answer = {"status": {"type": "string"}, "id": {"type": "string"}}
    errors = {
        "400": "A field is not valid; the message names it.",
        "409": "Other feedback has this id, or the page is of an earlier start of the server.",
        "413": "The body is too large.",
        "500": "The store cannot be written.",
        "507": "The disk of the store is full.",
    }
    return {
        "post": {
            "summary": "store feedback on an answer",
            "requestBody": {
                "description": "feedback of a kind, or any other object, which is stored as a comment",
                "required": True,
                "content": _json_content({"oneOf": [of_a_kind, of_another_form]}),
            },
            "responses": {
                "200": {
                    "description": "The feedback is stored.",
                    "content": _json_content({"type": "object", "properties": answer}),
                },
                **{status: {"description": text} for status, text in errors.items()},
            },
        }
    }


def _json_content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
