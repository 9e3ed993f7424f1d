"""Azure's clients, each created on first use, and the tags of the resources that this product creates."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any

from ..errors import OpsError
from ..installation import install_command
from ..waiting import WaitTimeoutError, wait_until
from .config import Config
from .faults import read_fault

CREATED_BY_TAG = "created-by"
PRODUCT = "phi3-promptflow"
EXPIRES_TAG = "expires"
OWNER_TAG = "owner"
WORKSPACE_TAG = "workspace"
SCALE_TAG = "scale"  # of an autoscale setting: fewest and most machines, as in "1 to 3"
ARM = "https://management.azure.com"
DATASTORE = "workspaceblobstore"  # the default datastore of a job's outputs
CONNECTIONS_API_VERSION = "2024-04-01-preview"
ENDPOINTS_API_VERSION = "2024-10-01"
AUTOSCALE_API_VERSION = "2022-10-01"
OPERATION_S = 3600.0  # limit for a long-running operation
OPERATION_POLL_S = 5.0  # where Azure does not say when to ask again
# Loggers that are limited to errors.
NOISY_LOGGERS = ("azure", "azure.identity", "msrest")
# Loggers that are switched off: notes on experimental classes, a template's progress, and errors that
# are also raised. They set their own level when azure.ai.ml is imported.
MUTED_LOGGERS = ("azure.ai.ml", "azure.ai.ml._arm_deployments.arm_deployment_executor")
# Headers of an answer that a long-running operation has begun, in lower case.
OPERATION_HEADERS = {"azure-asyncoperation", "location"}
OPERATION_ENDS = ("Succeeded", "Failed", "Canceled")


def state_text(state: Any) -> str:
    """Return the state of a resource or a job as text, "" without one.

    Newer versions of azure-ai-ml return members of enumerations, whose `str` has the name of the class.
    """
    return str(getattr(state, "value", state) or "")


class Cloud:
    """The clients for one configuration. Each is imported and created when it is first used.

    Args:
        config: subscription, resource group, workspace and names of the resources.
        credential: an azure-core TokenCredential; None creates a DefaultAzureCredential.

    Attributes:
        role_granted_at: time.monotonic() of this process's last role assignment; None without one.
    """

    def __init__(self, config: Config, credential: Any = None) -> None:
        self.config = config
        self._credential = credential
        self.role_granted_at: float | None = None
        for name in NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)

    @cached_property
    def credential(self) -> Any:
        """The TokenCredential of every client."""
        if self._credential is None:
            from azure.identity import DefaultAzureCredential

            return DefaultAzureCredential()
        return self._credential

    @cached_property
    def ml(self) -> Any:
        """The workspace's `MLClient`."""
        try:
            from azure.ai.ml import MLClient
        except ImportError as error:
            what = "the Azure packages are not installed"
            raise OpsError(what, install_command("azure")) from error
        for name in MUTED_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        azure = self.config.azure
        return MLClient(
            self.credential, azure.subscription_id, azure.resource_group, azure.workspace
        )

    @cached_property
    def catalog(self) -> Any:
        """The `MLClient` of the model catalog, which is the registry `azureml`."""
        from azure.ai.ml import MLClient

        return MLClient(self.credential, registry_name="azureml")

    @cached_property
    def identities(self) -> Any:
        """The operations on user-assigned identities."""
        from azure.mgmt.msi import ManagedServiceIdentityClient

        client = ManagedServiceIdentityClient(self.credential, self.config.azure.subscription_id)
        return client.user_assigned_identities

    @cached_property
    def authorization(self) -> Any:
        """The client for role definitions and role assignments."""
        from azure.mgmt.authorization import AuthorizationManagementClient

        return AuthorizationManagementClient(self.credential, self.config.azure.subscription_id)

    @cached_property
    def resources(self) -> Any:
        """The client for resources and resource groups."""
        from azure.mgmt.resource.resources import ResourceManagementClient

        return ResourceManagementClient(self.credential, self.config.azure.subscription_id)

    def rest(
        self,
        method: str,
        path: str,
        *,
        api: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request that no SDK offers, through an SDK's pipeline with its sign-in and retries.

        A long-running operation that the request starts is followed to its end.

        Args:
            method: HTTP method.
            path: path below https://management.azure.com, beginning with a slash.
            api: API version.
            body: value to send as JSON.
            query: further query parameters.

        Returns:
            The JSON of the answer, or None if the answer is empty.

        Raises:
            azure.core.exceptions.HttpResponseError: the status is an error; ResourceNotFoundError for
                404, ResourceExistsError for 409.
            OpsError: the operation failed, or has not ended after `OPERATION_S`.
        """
        params = {"api-version": api, **(query or {})}
        response = self._send(method, f"{ARM}{path}", params=params, json=body)
        if method != "GET" and OPERATION_HEADERS.intersection(map(str.lower, response.headers)):
            self._follow_operation(response, f"{method} {path}")
        return response.json() if response.text() else None

    def rest_list(
        self, path: str, *, api: str, query: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page by page.

        Args:
            path: path of the list, as for `rest`.
            api: API version.
            query: further query parameters.
        """
        page = self.rest("GET", path, api=api, query=query) or {}
        yield from page.get("value") or []
        while link := page.get("nextLink"):
            page = self._send("GET", link).json()
            yield from page.get("value") or []

    def _send(self, method: str, url: str, **content: Any) -> Any:
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError, map_error
        from azure.core.rest import HttpRequest

        response = self.resources.send_request(HttpRequest(method, url, **content))
        classes = {404: ResourceNotFoundError, 409: ResourceExistsError}
        map_error(response.status_code, response, classes)
        response.raise_for_status()
        return response

    def _follow_operation(self, response: Any, request: str) -> None:
        """Wait until a long-running operation has ended.

        Contract: "Track asynchronous Azure operations". The URL in Azure-AsyncOperation answers with a
        status, the one in Location with 202 until the operation has ended.
        """
        url = response.headers.get("Azure-AsyncOperation") or response.headers["Location"]
        try:
            answer = wait_until(
                lambda: self._send("GET", url),
                lambda answer: operation_status(answer) in OPERATION_ENDS,
                timeout_s=OPERATION_S,
                poll_s=_retry_after(response.headers),
            )
        except WaitTimeoutError as error:
            what = f"{request} has not ended after {OPERATION_S / 60:.0f} minutes"
            raise OpsError(what, "Look at the resource in the portal.") from error
        if (status := operation_status(answer)) != "Succeeded":
            raise OpsError(f"{request}: {status}: {read_fault(answer.json()).text}")

    def has_blob(self, name: str) -> bool:
        """Return whether the workspace's default datastore contains a blob of that name.

        Like the SDK's uploads, this signs in with the datastore's secret: many users who may deploy
        have no role on the storage account itself.
        """
        from azure.storage.blob import BlobClient

        store = self.ml.datastores.get(DATASTORE, include_secrets=True)
        secrets = store.credentials
        secret = getattr(secrets, "sas_token", None) or getattr(secrets, "account_key", None)
        url = f"{store.protocol}://{store.account_name}.blob.{store.endpoint}"
        credential = secret or self.credential
        with BlobClient(url, store.container_name, name, credential=credential) as blob:
            return bool(blob.exists())

    def user_assigned_identity(self) -> Any:
        """Return the configured identity as azure-ai-ml's object, for an endpoint or a cluster."""
        from azure.ai.ml.entities import IdentityConfiguration, ManagedIdentityConfiguration

        provider = f"{self.group_path}/providers/Microsoft.ManagedIdentity"
        identity = f"{provider}/userAssignedIdentities/{self.config.identity.name}"
        return IdentityConfiguration(
            type="user_assigned",
            user_assigned_identities=[ManagedIdentityConfiguration(resource_id=identity)],
        )

    @property
    def workspace_path(self) -> str:
        """The workspace's resource id."""
        provider = "Microsoft.MachineLearningServices"
        return f"{self.group_path}/providers/{provider}/workspaces/{self.config.azure.workspace}"

    @property
    def group_path(self) -> str:
        """The resource group's resource id."""
        azure = self.config.azure
        return f"/subscriptions/{azure.subscription_id}/resourceGroups/{azure.resource_group}"

    def tags(self) -> dict[str, str]:
        """Return the tags of a new resource: product, workspace, owner and expiry date.

        The workspace is tagged because a resource group may contain several.
        """
        expiry = datetime.now(timezone.utc) + timedelta(days=self.config.tags.expires_days)
        return {
            CREATED_BY_TAG: PRODUCT,
            WORKSPACE_TAG: self.config.azure.workspace,
            OWNER_TAG: self.config.tags.owner,
            EXPIRES_TAG: expiry.date().isoformat(),
        }

    def owns(self, tags: Mapping[str, str] | None) -> bool:
        """Return whether these tags say that this product created the resource for this workspace."""
        return (
            is_created_by_us(tags)
            and (tags or {}).get(WORKSPACE_TAG) == self.config.azure.workspace
        )


def operation_status(answer: Any) -> str:
    """Return the status that an operation's answer reports, such as "Updating" or "Succeeded"."""
    if answer.status_code == 202:
        return "InProgress"
    body = answer.json() if answer.text() else {}
    return str(body.get("status") or "Succeeded")


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds after which Azure wants to be asked again."""
    if milliseconds := headers.get("retry-after-ms"):
        return float(milliseconds) / 1000
    return float(headers.get("Retry-After") or OPERATION_POLL_S)


def is_created_by_us(tags: Mapping[str, str] | None) -> bool:
    """Return whether these tags say that this product created the resource."""
    return (tags or {}).get(CREATED_BY_TAG) == PRODUCT


def is_expired(tags: Mapping[str, str] | None, today: str) -> bool:
    """Return whether the expiry tag is before `today` (ISO date). Without the tag, nothing expires."""
    return bool((tags or {}).get(EXPIRES_TAG)) and (tags or {})[EXPIRES_TAG] < today
