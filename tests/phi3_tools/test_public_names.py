"""The public names. A change here changes the package for its users: see CHANGELOG.md."""

from __future__ import annotations

import importlib

import pytest

import phi3_tools

NAMES = """
AsyncStream AuthenticationError BadAnswerError BadRequestError ConfigError ConnectionLostError
DeploymentNotFoundError EndpointTimeoutError EndpointUnreachableError EntraAuth
InvalidAnswerError KeyAuth Limits Message ModelNotReadyError Params PermissionDeniedError
Phi3Client Phi3Error PromptTooLongError RateLimitedError Reply RequestTooLargeError
ScoringFailedError ServerError Settings StatusError Stream ToolCall UnexpectedRedirectError
Usage fit from_chat_history to_chat_history
"""
FORMER_NAMES = """
PromptTooLong EndpointUnreachable EndpointTimeout ConnectionLost BadAnswer ScoringFailed
BadRequest PermissionDenied DeploymentNotFound RequestTooLarge RateLimited ModelNotReady
UnexpectedRedirect
"""


def test_the_public_names_are_these():
    assert phi3_tools.__all__ == NAMES.split()


def test_every_public_name_exists_and_is_documented():
    for name in phi3_tools.__all__:
        assert getattr(phi3_tools, name).__doc__ or issubclass(
            getattr(phi3_tools, name), phi3_tools.Phi3Error
        ), name


def test_every_error_is_public():
    from phi3_tools import errors

    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes <= set(phi3_tools.__all__)


@pytest.mark.parametrize("name", FORMER_NAMES.split())
@pytest.mark.parametrize("module", ["phi3_tools", "phi3_tools.errors"])
def test_a_former_name_of_an_error_still_works_with_a_warning(module, name):
    with pytest.warns(DeprecationWarning, match=f"use {name}Error") as warned:
        former = getattr(importlib.import_module(module), name)
    assert former is getattr(phi3_tools, f"{name}Error")
    assert warned[0].filename == __file__


def test_a_former_name_can_be_imported():
    with pytest.warns(DeprecationWarning):
        from phi3_tools import RateLimited
    assert RateLimited is phi3_tools.RateLimitedError


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'RateLimit'"):
        phi3_tools.RateLimit  # noqa: B018
    with pytest.raises(ImportError):
        from phi3_tools import NoSuchName  # noqa: F401


def test_the_client_shows_only_what_callers_use(connect):
    client = connect("http://127.0.0.1:1/score")
    public = {name for name in dir(client) if not name.startswith("_")}
    methods = {"from_connection", "chat", "stream", "achat", "astream", "close"}
    assert public == {"settings", "contract"} | methods
