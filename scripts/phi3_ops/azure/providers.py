"""The resource providers that a subscription must have registered before their resources can be created.

Contract: "Azure resource providers and types", and "Resource Providers" of the Resources REST API.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import OpsError
from ..waiting import WaitTimeoutError, wait_until
from .cloud import Cloud
from .faults import named_errors
from .plan import Step

# A workspace, its parts, an endpoint and its deployments need these. Without PolicyInsights and Cdn,
# Azure refuses an endpoint and does not name them.
PROVIDERS = (
    "Microsoft.MachineLearningServices",
    "Microsoft.ContainerRegistry",
    "Microsoft.ManagedIdentity",
    "Microsoft.PolicyInsights",
    "Microsoft.Cdn",
    "Microsoft.Storage",
    "Microsoft.KeyVault",
    "Microsoft.Insights",
    "Microsoft.OperationalInsights",
)
PROVIDERS_API = "2021-04-01"
REGISTERED = "Registered"
REGISTRATION_S = 900.0
POLL_S = 5.0


def unregistered_providers(cloud: Cloud) -> list[str]:
    """Return the providers of `PROVIDERS` that the subscription has not registered.

    The list is empty if the user may not read them, for example with roles on a resource group only.

    Raises:
        OpsError: Azure does not answer.
    """
    with named_errors("reading the resource providers"):
        return [name for name in PROVIDERS if not _is_registered(cloud, name)]


def refuse_unregistered(names: Iterable[str]) -> None:
    """Raise OpsError if there are names of providers."""
    if listed := ", ".join(names):
        raise OpsError(
            f"the subscription has not registered {listed}", "Run `phi3 provision --register`."
        )


def registration_step(cloud: Cloud, name: str) -> Step:
    """Return the step that registers a provider and waits until it is registered."""
    return Step(
        f"resource provider {name}",
        lambda: _state(cloud, name) == REGISTERED,
        lambda: _register(cloud, name),
        verb="register",
        usual="1 to 3 min",
    )


def _register(cloud: Cloud, name: str) -> None:
    cloud.rest("POST", f"{_path(cloud, name)}/register", api=PROVIDERS_API)
    try:
        wait_until(
            lambda: _state(cloud, name),
            lambda state: state == REGISTERED,
            timeout_s=REGISTRATION_S,
            poll_s=POLL_S,
        )
    except WaitTimeoutError as error:
        what = f"the resource provider {name} has been {error.last} for {REGISTRATION_S / 60:.0f} minutes"
        raise OpsError(what, "Run this again later; it continues where it stopped.") from error


def _is_registered(cloud: Cloud, name: str) -> bool:
    from azure.core.exceptions import HttpResponseError

    try:
        return _state(cloud, name) == REGISTERED
    except HttpResponseError as error:
        if error.status_code == 403:
            return True
        raise


def _state(cloud: Cloud, name: str) -> str:
    return str(cloud.rest("GET", _path(cloud, name), api=PROVIDERS_API).get("registrationState"))


def _path(cloud: Cloud, name: str) -> str:
    return f"/subscriptions/{cloud.config.azure.subscription_id}/providers/{name}"
