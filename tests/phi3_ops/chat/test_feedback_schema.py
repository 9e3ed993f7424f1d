"""The OpenAPI document of a flow while feedback is stored."""

from __future__ import annotations

import asyncio
import json

from phi3_ops.chat.feedback import BODY_FIELDS
from phi3_ops.chat.feedback_schema import FeedbackDescribed, feedback_schema
from phi3_ops.feedback.records import KINDS


def answer_of(path, status, pieces):
    """The ASGI messages for a path, from an app that answers in pieces."""
    messages = []

    async def app(scope, receive, send):
        headers = [(b"content-type", b"application/json"), (b"Content-Length", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, piece in enumerate(pieces, 1):
            more = number < len(pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    async def send(message):
        messages.append(message)

    asyncio.run(FeedbackDescribed(app)({"type": "http", "path": path}, None, send))
    return messages


def test_a_document_in_pieces_is_described():
    start, body = answer_of(
        "/swagger.json", 200, [b'{"paths": {"/score": 1, ', b'"/feedback": 2}}']
    )
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert b"Content-Length" not in dict(start["headers"])
    document = json.loads(body["body"])
    assert document["paths"] == {"/score": 1, "/feedback": feedback_schema()}


def test_errors_and_other_paths_stay_as_they_are():
    for path, status in (("/swagger.json", 404), ("/score", 200)):
        messages = answer_of(path, status, [b"a", b"b"])
        assert messages[0]["status"] == status
        assert b"".join(message.get("body", b"") for message in messages) == b"ab"


def test_the_fields_are_those_that_are_accepted():
    request = feedback_schema()["post"]["requestBody"]
    fields, other = request["content"]["application/json"]["schema"]["oneOf"]
    assert set(fields["properties"]) == set(BODY_FIELDS)
    assert fields["properties"]["kind"]["enum"] == list(KINDS)
    assert other["not"] == {"required": ["kind"]}
