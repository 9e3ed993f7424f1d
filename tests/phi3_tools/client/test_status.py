"""The error for each status."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from requests.structures import CaseInsensitiveDict

from phi3_tools import (
    AuthenticationError,
    BadRequestError,
    DeploymentNotFoundError,
    EndpointTimeoutError,
    ModelNotReadyError,
    PermissionDeniedError,
    RateLimitedError,
    RequestTooLargeError,
    ScoringFailedError,
    ServerError,
    UnexpectedRedirectError,
)
from phi3_tools.client.status import CAUSES, WRAPPED_CAUSES, error_for_response, retry_after_s
from phi3_tools.errors import DETAIL_LIMIT

INNER = "ms-azureml-model-error-statuscode"
REASON = "ms-azureml-model-error-reason"


def error(code, headers=None, body=b""):
    return error_for_response(code, CaseInsensitiveDict(headers or {}), body)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (204, ServerError),
        (301, UnexpectedRedirectError),
        (302, UnexpectedRedirectError),
        (307, UnexpectedRedirectError),
        (308, UnexpectedRedirectError),
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, DeploymentNotFoundError),
        (405, BadRequestError),
        (408, EndpointTimeoutError),
        (409, BadRequestError),
        (413, RequestTooLargeError),
        (422, BadRequestError),
        (424, ScoringFailedError),
        (429, RateLimitedError),
        (500, ServerError),
        (502, ServerError),
        (503, ServerError),
        (504, ServerError),
        (599, ServerError),
    ],
)
def test_errors_for_statuses_of_the_front_end(code, cause):
    failure = error(
        code, {"X-Ms-Request-Id": "r-1"}, b'{"error": {"message": "endpoint message."}}'
    )
    assert type(failure) is cause
    assert failure.status == code
    assert failure.request_id == "r-1"
    assert failure.detail == "endpoint message."
    assert f"({code}): endpoint message [request r-1]. {cause.hint}" in str(failure)


def test_both_tables_are_tested():
    tested = {400, 401, 403, 404, 408, 413, 422, 429}
    assert set(CAUSES) == tested
    assert set(WRAPPED_CAUSES) == {400, 408, 413, 415, 422, 429, 504}


@pytest.mark.parametrize(
    ("inner", "cause"),
    [
        (400, BadRequestError),
        (401, ScoringFailedError),
        (403, ScoringFailedError),
        (404, ScoringFailedError),
        (408, EndpointTimeoutError),
        (413, RequestTooLargeError),
        (415, BadRequestError),
        (422, BadRequestError),
        (429, RateLimitedError),
        (500, ScoringFailedError),
        (503, ScoringFailedError),
        (504, EndpointTimeoutError),
    ],
)
def test_errors_for_statuses_of_the_model(inner, cause):
    failure = error(424, {INNER.upper(): str(inner)}, b"model's words")
    assert type(failure) is cause
    assert failure.status == inner
    assert f"(424 around {inner}): model's words" in str(failure)


@pytest.mark.parametrize("reason", ["model_not_ready", "too_few_model_instance"])
@pytest.mark.parametrize("inner", [{}, {INNER: "500"}])
def test_a_model_that_is_not_ready(reason, inner):
    failure = error(424, {REASON: reason, **inner})
    assert type(failure) is ModelNotReadyError
    assert failure.detail == reason


@pytest.mark.parametrize("value", ["", "abc", "²", "٤٢٩", "-1", "99", "600", "4" * 5000, "5e2"])
def test_an_invalid_inner_status(value):
    failure = error(424, {INNER: value})
    assert type(failure) is ScoringFailedError
    assert failure.status == 424


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", None),
        (b"  \n ", None),
        (b"<html><body>502</body></html>", None),
        (b" <!DOCTYPE html>", None),
        (b"plain words", "plain words"),
        (b'"quoted"', "quoted"),
        (b'{"detail": "d"}', "d"),
        (b'{"message": "m"}', "m"),
        (b'{"cut', '{"cut'),
        (b"two\r\n\tlines", "two lines"),
        ("ü".encode() + b"\xff", "ü\ufffd"),
        (b'{"message": "\\ud800"}', "\ufffd"),
    ],
)
def test_detail(body, detail):
    assert error(500, {}, body).detail == detail


def test_detail_is_shortened_and_survives_deep_nesting():
    assert len(error(500, {}, b"x" * 9999).detail) == DETAIL_LIMIT
    assert error(500, {}, b"[" * 99_999).detail == "[" * DETAIL_LIMIT


def test_a_redirects_target_is_not_repeated():
    failure = error(
        302, {"Location": "https://evil/?key=secret"}, b"go to https://evil/?key=secret"
    )
    assert "evil" not in str(failure) + repr(failure)


@pytest.mark.finding(
    24,
    "`Retry-After` is a date out of range, a word or a huge number",
    "it is read or ignored; nothing but a `Phi3Error` is raised",
)
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("7", 7),
        ("1.5", 1.5),
        (" 7", 7),
        ("-5", None),
        ("soon", None),
        ("7 s", None),
        ("nan", None),
        ("²", None),
        ("1e999", float("inf")),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 9999999999999 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999999", None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after_s(value) == seconds


@pytest.mark.parametrize("zone", [timezone.utc, timezone(timedelta(hours=2)), None])
def test_retry_after_as_a_date(zone):
    """A date without a time zone is UTC."""
    moment = datetime.now(zone or timezone.utc) + timedelta(seconds=1000)
    text = format_datetime(moment.replace(tzinfo=None) if zone is None else moment)
    assert 900 < retry_after_s(text.replace(" -0000", "")) <= 1000


def test_retry_after_reaches_the_error():
    assert error(429, {"Retry-After": "3"}).retry_after == 3
