"""What a command ends with: one line, in two parts."""

from __future__ import annotations

import pytest

from phi3_ops.endpoint.container import EndpointError
from phi3_ops.endpoint.fault_rules import FaultError
from phi3_ops.errors import ExplainedError, OpsError, first_line, without_user_info
from phi3_tools import ConfigError


def test_an_error_keeps_its_two_parts():
    error = OpsError("v1.2 of the file is missing", "Run `phi3 data`. Then try again.")
    assert (error.what, error.fix) == (
        "v1.2 of the file is missing",
        "Run `phi3 data`. Then try again.",
    )
    assert str(error) == "v1.2 of the file is missing. Run `phi3 data`. Then try again."


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("HEAD https://user:pw@host/x failed", "HEAD https://host/x failed"),
        ("'http://pw@a' and http://u:p@b:1/", "'http://a' and http://b:1/"),
        ("https://host/a@b", "https://host/a@b"),
        ("mail a@b.example", "mail a@b.example"),
    ],
)
def test_user_names_and_passwords_of_urls_are_removed(text, clean):
    assert without_user_info(text) == clean


def test_without_advice_the_text_is_what_is_wrong():
    assert str(OpsError("it is broken")) == "it is broken"


@pytest.mark.parametrize(
    "error", [OpsError("a"), EndpointError("a"), FaultError("a"), ConfigError("a")]
)
def test_every_error_of_the_project_explains_itself(error):
    assert isinstance(error, ExplainedError)


def test_other_errors_do_not():
    assert not isinstance(ValueError("a"), ExplainedError)


@pytest.mark.parametrize(
    "error, line",
    [(ValueError("a\nb"), "a"), (ValueError(""), "ValueError"), (KeyError(), "KeyError")],
)
def test_first_line(error, line):
    assert first_line(error) == line
