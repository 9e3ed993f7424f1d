"""The names that others may rely on. A change here is a change for them: see CHANGELOG.md."""

from __future__ import annotations

import phi3_tools

NAMES = """
AuthenticationError BadAnswer BadRequest ConfigError ConnectionLost DeploymentNotFound
EndpointTimeout EndpointUnreachable EntraAuth KeyAuth Limits Message ModelNotReady Params
PermissionDenied Phi3Client Phi3Error PromptTooLong RateLimited Reply RequestTooLarge ScoringFailed
ServerError Settings StatusError Stream UnexpectedRedirect Usage fit from_chat_history
to_chat_history
"""


def test_the_public_names_are_these():
    assert phi3_tools.__all__ == NAMES.split()


def test_every_public_name_is_there_and_documented():
    for name in phi3_tools.__all__:
        assert getattr(phi3_tools, name).__doc__ or issubclass(
            getattr(phi3_tools, name), phi3_tools.Phi3Error
        ), name


def test_every_error_is_public():
    from phi3_tools import errors

    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes <= set(phi3_tools.__all__)
