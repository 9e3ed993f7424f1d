"""promptflow's client of a Foundry project or an Azure ML workspace; its errors become Azure's errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from ..azure import Cloud
from ..errors import OpsError, first_line
from ..installation import install_command
from ..pf import prepare

_STATUS = re.compile(r"Code: (\d{3})\b")


def foundry_client(cloud: Cloud) -> Any:
    """Return the workspace's `promptflow.azure.PFClient`.

    Raises:
        OpsError: the Azure packages are missing, or promptflow refuses the workspace.
        azure.core.exceptions.AzureError: Azure refuses the request.
    """
    prepare()  # before Prompt flow's first import
    try:
        from promptflow.azure import PFClient
    except ImportError as error:
        what = "the Azure packages are not installed"
        raise OpsError(what, install_command("azure")) from error
    with foundry_errors():
        return PFClient(ml_client=cloud.ml)


@contextlib.contextmanager
def foundry_errors() -> Iterator[None]:
    """Turn promptflow's errors into the Azure error that caused them, or else into one line.

    promptflow calls the run history without azure-core; the errors of those calls are turned as well.

    Raises:
        azure.core.exceptions.AzureError: Azure refused a request of the block, or cannot be reached.
        OpsError: the block raised any other PromptflowException.
    """
    import requests
    from azure.core.exceptions import (
        AzureError,
        HttpResponseError,
        ResourceNotFoundError,
        ServiceRequestError,
    )
    from promptflow._sdk._errors import RunNotFoundError
    from promptflow.azure.operations._run_operations import RunRequestException
    from promptflow.exceptions import PromptflowException

    try:
        yield
    except RunNotFoundError as error:
        raise ResourceNotFoundError(str(error)) from error
    except PromptflowException as error:
        cause = error.inner_exception
        if getattr(cause, "status_code", None) == 404:
            raise ResourceNotFoundError(response=getattr(cause, "response", None)) from error
        if isinstance(cause, AzureError):
            raise cause from error
        raise OpsError(f"Prompt flow's client failed: {first_line(error)}") from error
    except RunRequestException as error:
        response_error = HttpResponseError(str(error))
        if status := _STATUS.search(str(error)):
            response_error.status_code = int(status[1])
        raise response_error from error
    except requests.RequestException as error:
        raise ServiceRequestError(str(error), error=error) from error
