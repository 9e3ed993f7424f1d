"""`POST /feedback`: checks what the page or a program sends, and stores it.

Two forms are accepted. A JSON object with `kind` has the fields of `BODY_FIELDS`. Any other JSON object
is feedback as `pf flow serve` accepts it ("Enable trace and collect feedback for a flow deployment"); its
JSON is stored as a comment.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from phi3_tools import Phi3Error
from phi3_tools.client import redactor
from phi3_tools.serving import RefusedRequest

from ..errors import OpsError
from ..feedback import (
    MAX_COMMENT,
    ConflictError,
    Feedback,
    FeedbackFieldError,
    FeedbackStore,
    StoreFullError,
    utc_text,
)
from ..flows import FlowDefinition
from ..pf import require_connection
from ..terminal import escape_invisible, is_blank

# What the server itself knows; a request that has these fields is refused.
SERVER_FIELDS = ("flow", "flow_version", "model", "time")
BODY_FIELDS = (
    *("kind", "question", "answer", "edited", "chosen", "rejected", "comment"),
    *("conversation", "turn", "history", "connection", "against", "who", "id"),
)
_ABOUT_AN_ANSWER = ("thumbs_up", "thumbs_down", "edit")
_LISTED_NAMES = ("id", "conversation", "who")  # that `phi3 feedback` prints or takes
_RECEIVED = "Feedback received."  # promptflow's answer
_OTHER_START = (
    "the server was started again since this page was loaded, so it does not know which model gave the "
    "answer; load the page again, and ask again"
)
_QUOTED_CHARS = 40  # of an unknown field's name in an error


@dataclass(frozen=True)
class FeedbackOptions:
    """Where `phi3 serve` stores feedback.

    Attributes:
        file: path of the store.
        user: who gives feedback if a request does not say it, or None.
        secrets: texts that are cut out of feedback, besides the keys of the connections.
        start: id of this start of the server. Answers of another start may come from another model.
    """

    file: Path
    user: str | None = None
    secrets: Sequence[str] = field(default=(), repr=False)
    start: str = field(default_factory=lambda: uuid.uuid4().hex)


class FeedbackReceiver:
    """Checks and stores the feedback on the answers of one flow.

    Args:
        options: where feedback is stored.
        flow: the flow.
        connections: names of the connections that answer; none if the flow uses none.

    Raises:
        OpsError: the store cannot be written.
    """

    def __init__(
        self, options: FeedbackOptions, flow: FlowDefinition, connections: Sequence[str]
    ) -> None:
        self._options, self._flow, self._connections = options, flow, connections
        self._flow_name = flow.folder.resolve().name
        self._store = FeedbackStore(options.file)
        self._store.create()

    def receive(
        self, body: bytes, user: str | None, side: int = 0, start: str | None = None
    ) -> dict[str, str]:
        """Store the feedback in the body of a request, and return the answer.

        Args:
            body: the body.
            user: name of the user in the request's password, or None.
            side: number of the connection whose path was requested.
            start: start of the server that the page was loaded from, or None for a program.

        Raises:
            RefusedRequest: 400 with the name of the field that is not valid; 409 for an id that other
                feedback has, and for a page of an earlier start; 507 if the disk is full, and 500 if the
                store cannot be written or a connection cannot be read.
        """
        if start not in (None, self._options.start):
            raise RefusedRequest(409, _OTHER_START)
        content = _json_object(body)
        if "kind" not in content:
            content = {"kind": "comment", "comment": _as_comment(content)}
        try:
            record = self._record(content, user, side)
            self._store.add(self._without_secrets(record))
        except FeedbackFieldError as error:
            raise RefusedRequest(400, str(error)) from error
        except ConflictError as error:
            raise RefusedRequest(409, f"id: {error}") from error
        except (OpsError, Phi3Error) as error:  # of the store, or of the connection's keyring
            status = 507 if isinstance(error, StoreFullError) else 500
            message = f"the feedback was not saved: {error}"
            raise RefusedRequest(status, message, code="SystemError") from error
        return {"status": _RECEIVED, "id": record.id}

    def _record(self, content: Mapping[str, Any], user: str | None, side: int) -> Feedback:
        _require_body_fields(content)
        # A program may send the same record again, so what is not random must come from the record.
        record_id = content.get("id", str(uuid.uuid4()))
        defaults = {
            "id": record_id,
            "who": user or self._options.user,
            "conversation": record_id,
            "turn": 1,
            "answer": content.get("chosen", ""),
        }
        version = self._flow.version
        known = {
            "time": utc_text(datetime.now(timezone.utc)),
            "flow": self._flow_name,
            "flow_version": None if version is None else str(version),
            **self._connection_fields(content, side),
        }
        record = Feedback.from_json({**defaults, **content, **known})
        _require_readable(record)
        return record

    def _connection_fields(self, content: Mapping[str, Any], side: int) -> dict[str, str | None]:
        """Return the fields that say which connection answered.

        Raises:
            FeedbackFieldError: a connection is not one that this server uses.
        """
        names = self._connections or [self._flow_name]  # the page calls a flow's only side so
        for name in ("connection", "against"):
            if content.get(name) not in (*names, None):
                raise FeedbackFieldError(name, f"is not one of {', '.join(names)}")
        if not self._connections:
            return {"connection": None, "against": None}
        connection = content.get("connection") or names[side]
        configs = dict(require_connection(connection).configs)
        model = configs.get("model") or configs.get("deployment")
        return {"connection": connection, "model": model}

    def _without_secrets(self, record: Feedback) -> Feedback:
        """Return the feedback without passwords and keys that a user pasted or an endpoint repeated.

        Words that are only a part of one stay, because feedback becomes training data.
        """
        secrets = list(self._options.secrets)
        for name in self._connections:
            secrets += [str(value) for value in dict(require_connection(name).secrets).values()]
        for secret in filter(None, secrets):
            redact = redactor(secret).redact_complete
            if redact(record.id) != record.id:
                raise FeedbackFieldError("id", "contains a key or the password")
            record = record.redacted(redact)
        return record


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # also bytes that are not UTF-8
        raise RefusedRequest(400, "the body is not JSON") from None
    if not isinstance(content, dict):
        raise RefusedRequest(400, "the body is not a JSON object")
    return content


def _as_comment(content: Mapping[str, Any]) -> str:
    """Return feedback of another form as text."""
    try:
        text = json.dumps(content, ensure_ascii=False)
    except RecursionError:
        raise RefusedRequest(400, "the body is nested too deeply") from None
    if len(text) > MAX_COMMENT:
        message = f"feedback without `kind` has more than {MAX_COMMENT} characters of JSON"
        raise RefusedRequest(400, message)
    return text


def _require_body_fields(content: Mapping[str, Any]) -> None:
    for name in content:
        if name in SERVER_FIELDS:
            raise FeedbackFieldError(name, "is set by the server; leave it out")
        if name not in BODY_FIELDS:
            quoted = name[:_QUOTED_CHARS].encode("ascii", "backslashreplace").decode()
            problem = f"is not a field; the fields are {', '.join(BODY_FIELDS)}"
            raise FeedbackFieldError(quoted, problem)
    if content["kind"] in _ABOUT_AN_ANSWER:
        for name in ("question", "answer"):
            if name not in content:
                raise FeedbackFieldError(name, "is missing")
    if content["kind"] == "choice" and "question" not in content:
        raise FeedbackFieldError("question", "is missing")


def _require_readable(record: Feedback) -> None:
    """Raise FeedbackFieldError if a name cannot be typed, or if a text has nothing to read."""
    for name in _LISTED_NAMES:
        text = getattr(record, name) or ""
        if escape_invisible(text) != text or "\n" in text or "\t" in text:
            raise FeedbackFieldError(name, "contains a control character or an invisible one")
    for name in ("edited", "chosen", "rejected"):
        text = getattr(record, name)
        if text is not None and is_blank(text):
            raise FeedbackFieldError(name, "has no visible character")
    if record.kind == "choice" and record.answer != record.chosen:
        raise FeedbackFieldError("answer", "is not the chosen answer; leave it out")
