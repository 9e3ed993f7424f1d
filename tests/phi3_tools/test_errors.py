"""The exception classes: texts, hints, and whose fault they are."""

from __future__ import annotations

import json
import pickle

import pytest

from phi3_tools import (
    BadRequestError,
    Phi3Error,
    errors,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, Phi3Error)
]


@pytest.mark.parametrize("cause", CLASSES)
def test_an_error_keeps_its_fields_also_when_pickled(cause):
    error = cause("it failed", status=418, request_id="r", detail="why.", retry_after=2.0)
    assert str(error) == f"it failed: why [request r].{f' {cause.hint}' if cause.hint else ''}"
    copy = pickle.loads(pickle.dumps(error))  # as a process pool does
    assert type(copy) is cause
    assert vars(copy) == vars(error)
    assert json.loads(json.dumps(error.as_dict())) == {
        "type": cause.__name__,
        "message": "it failed",
        "status": 418,
        "request_id": "r",
        "detail": "why.",
        "hint": cause.hint,
    }


@pytest.mark.parametrize("cause", CLASSES)
def test_the_tree_is_drawn_in_the_docstring(cause):
    assert cause.__name__ in errors.__doc__


def test_a_hint_can_be_replaced():
    assert str(BadRequestError("no", hint="Do this.")) == "no. Do this."
    assert str(BadRequestError("no", hint="")) == "no."


def test_user_fault():
    users = {cause.__name__ for cause in CLASSES if cause.user_fault}
    assert users == {
        "ConfigError",
        "PromptTooLongError",
        "BadRequestError",
        "AuthenticationError",
        "PermissionDeniedError",
        "DeploymentNotFoundError",
        "RequestTooLargeError",
        "UnexpectedRedirectError",
    }
