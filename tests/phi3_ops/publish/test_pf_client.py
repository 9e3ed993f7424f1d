"""promptflow's errors as Azure's errors, or as one line."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import requests

from offline_cloud import offline_cloud
from phi3_ops.errors import OpsError
from phi3_ops.publish.pf_client import foundry_client, foundry_errors


def test_without_the_azure_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "promptflow.azure", None)
    with pytest.raises(OpsError, match="pip install .*azure"):
        foundry_client(offline_cloud())


def test_a_run_that_does_not_exist():
    from azure.core.exceptions import ResourceNotFoundError
    from promptflow._sdk._errors import RunNotFoundError

    with pytest.raises(ResourceNotFoundError, match="no run"), foundry_errors():
        raise RunNotFoundError("no run")


def wrapping(error):
    from promptflow.exceptions import UserErrorException

    return UserErrorException("it failed", error=error)


def test_the_azure_error_below_is_raised():
    from azure.core.exceptions import HttpResponseError

    cause = HttpResponseError("You may not.")
    with pytest.raises(HttpResponseError) as caught, foundry_errors():
        raise wrapping(cause)
    assert caught.value is cause


def test_a_404_below_is_a_missing_resource():
    from azure.core.exceptions import ResourceNotFoundError

    cause = Exception()
    cause.status_code = 404
    cause.response = SimpleNamespace(reason="Not Found", status_code=404, text=lambda: "")
    with pytest.raises(ResourceNotFoundError), foundry_errors():
        raise wrapping(cause)


def test_any_other_error_of_promptflow_is_one_line():
    from promptflow.exceptions import UserErrorException

    with pytest.raises(OpsError, match="^Prompt flow's client failed: bad$"), foundry_errors():
        raise UserErrorException("bad\nmore lines")


@pytest.mark.parametrize(("text", "status"), [("Code: 403, no", 403), ("no code", None)])
def test_the_run_historys_errors_keep_their_status(text, status):
    from azure.core.exceptions import HttpResponseError
    from promptflow.azure.operations._run_operations import RunRequestException

    with pytest.raises(HttpResponseError) as caught, foundry_errors():
        raise RunRequestException(text)
    assert caught.value.status_code == status


def test_no_answer():
    from azure.core.exceptions import ServiceRequestError

    with pytest.raises(ServiceRequestError, match="refused"), foundry_errors():
        raise requests.ConnectionError("refused")
