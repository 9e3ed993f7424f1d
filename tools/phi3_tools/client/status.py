"""Conversion of an HTTP error into the exception that names its cause.

Contract: "Troubleshoot online endpoint deployment and scoring", HTTP status codes. The front end of an
online endpoint answers 424 if the container answered with any status except 200. The container's own
status and reason are in two headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from ..errors import (
    AuthenticationError,
    BadRequestError,
    DeploymentNotFoundError,
    EndpointTimeoutError,
    ModelNotReadyError,
    PermissionDeniedError,
    Phi3Error,
    RateLimitedError,
    RequestTooLargeError,
    ScoringFailedError,
    ServerError,
    UnexpectedRedirectError,
)
from .contracts import error_text
from .wire_json import parse_json

MODEL_STATUS = "ms-azureml-model-error-statuscode"
MODEL_REASON = "ms-azureml-model-error-reason"
REQUEST_ID = "x-ms-request-id"
NOT_READY = ("model_not_ready", "too_few_model_instance")

# Errors for the statuses of the front end itself.
CAUSES: dict[int, tuple[type[Phi3Error], str]] = {
    400: (BadRequestError, "the endpoint refused the request"),
    401: (AuthenticationError, "the endpoint refused the key or token"),
    403: (PermissionDeniedError, "the endpoint refused this caller"),
    404: (DeploymentNotFoundError, "the endpoint has no deployment for this request"),
    408: (EndpointTimeoutError, "the endpoint's own time limit passed"),
    413: (RequestTooLargeError, "the request is too large for the endpoint"),
    422: (BadRequestError, "the endpoint refused the request"),
    429: (RateLimitedError, "the endpoint has too many requests"),
}
# Errors for the statuses of the container (424 around them). Other statuses are failures of the model;
# a 401 from the container, for example, does not concern the caller's key.
WRAPPED_CAUSES: dict[int, tuple[type[Phi3Error], str]] = {
    400: (BadRequestError, "the model refused the request"),
    408: (EndpointTimeoutError, "the model's own time limit passed"),
    413: (RequestTooLargeError, "the request is too large for the model"),
    415: (BadRequestError, "the model refused the content type"),
    422: (BadRequestError, "the model refused the request"),
    429: (RateLimitedError, "the model has too many requests"),
    504: (EndpointTimeoutError, "the model took too long"),
}


def error_for_response(status: int, headers: Mapping[str, str], body: bytes) -> Phi3Error:
    """Return the error for an HTTP response whose status is not 200.

    Args:
        status: HTTP status.
        headers: response headers, as a case-insensitive mapping.
        body: the body, or its beginning.
    """
    cause, message = _cause(status, headers)
    return cause(
        f"{message} ({_status_text(status, headers)})",
        status=_model_status(headers) or status,
        request_id=headers.get(REQUEST_ID),
        detail=_detail(headers, body),
        retry_after=retry_after_s(headers.get("retry-after")),
    )


def _cause(status: int, headers: Mapping[str, str]) -> tuple[type[Phi3Error], str]:
    if status == 424:
        if headers.get(MODEL_REASON) in NOT_READY:
            return ModelNotReadyError, "the model is not ready"
        failed = (ScoringFailedError, "the model failed to answer")
        return WRAPPED_CAUSES.get(_model_status(headers) or 0, failed)
    if 300 <= status < 400:
        return UnexpectedRedirectError, "the endpoint redirects to another address"
    if 400 <= status < 500:
        return CAUSES.get(status, (BadRequestError, "the endpoint refused the request"))
    return ServerError, "the endpoint failed"


def _model_status(headers: Mapping[str, str]) -> int | None:
    value = headers.get(MODEL_STATUS, "").strip()
    return int(value) if re.fullmatch(r"[1-5][0-9]{2}", value) else None


def _status_text(status: int, headers: Mapping[str, str]) -> str:
    inner = _model_status(headers)
    return f"{status} around {inner}" if inner else str(status)


def _detail(headers: Mapping[str, str], body: bytes) -> str | None:
    if headers.get("location"):
        return None  # the target of a redirect may contain secrets
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        text = ""  # an HTML page of a proxy is of no use in a message
    with suppress(ValueError):
        text = error_text(parse_json(text)) if text else ""
    return text or headers.get(MODEL_REASON)


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header, a number or an HTTP date; None if it is not valid."""
    if not value:
        return None
    try:
        return max(0.0, float(value)) if value.strip()[:1].isdigit() else _seconds_until(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _seconds_until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
