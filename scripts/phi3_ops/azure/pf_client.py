"""promptflow's own client of a Foundry project or an Azure ML workspace, and its errors as Azure's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from ..errors import OpsError, first_line
from ..pf import pf_client
from .cloud import Cloud

_STATUS = re.compile(r"Code: (\d{3})\b")


def foundry_client(cloud: Cloud) -> Any:
    """The workspace's `promptflow.azure.PFClient`.

    Raises:
        OpsError: the Azure packages are missing, or what `errors` raises.
    """
    pf_client()  # makes prompt flow quiet before its first import
    try:
        from promptflow.azure import PFClient
    except ImportError as error:
        fix = "pip install 'phi3-promptflow[azure]'"
        raise OpsError("the Azure packages are not installed", fix) from error
    with foundry_errors():
        return PFClient(ml_client=cloud.ml)


@contextlib.contextmanager
def foundry_errors() -> Iterator[None]:
    """promptflow's errors as Azure's, where there is one below; else as one line.

    Raises AzureError or OpsError in place of a PromptflowException, and of what its calls of the run
    history raise, which it makes without azure-core.
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
        below = error.inner_exception
        if getattr(below, "status_code", None) == 404:
            raise ResourceNotFoundError(response=getattr(below, "response", None)) from error
        if isinstance(below, AzureError):
            raise below from error
        raise OpsError(f"prompt flow's client refuses: {first_line(error)}") from error
    except RunRequestException as error:
        refused = HttpResponseError(str(error))
        if found := _STATUS.search(str(error)):
            refused.status_code = int(found[1])
        raise refused from error
    except requests.RequestException as error:
        raise ServiceRequestError(str(error), error=error) from error
