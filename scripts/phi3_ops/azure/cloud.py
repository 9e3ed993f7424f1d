"""Azure's clients, each created on first use, and the tags of the resources that this product creates."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any, TypeVar

from ..errors import OpsError
from ..installation import install_command
from .config import Config

T = TypeVar("T")

CREATED_BY_TAG = "created-by"
PRODUCT = "phi3-promptflow"
EXPIRES_TAG = "expires"
OWNER_TAG = "owner"
WORKSPACE_TAG = "workspace"
ARM = "https://management.azure.com"
DATASTORE = "workspaceblobstore"  # the default datastore of a job's outputs
CONNECTIONS_API_VERSION = "2024-04-01-preview"
# Loggers that are limited to errors.
NOISY_LOGGERS = ("azure", "azure.identity", "msrest")
# Loggers that are switched off: notes on experimental classes, a template's progress, and errors that
# are also raised. They set their own level when azure.ai.ml is imported.
MUTED_LOGGERS = ("azure.ai.ml", "azure.ai.ml._arm_deployments.arm_deployment_executor")

# Status -> what the user can do about it.
FIXES = {
    403: "Ask the subscription's owner for the role that this action needs.",
    409: "A resource of this name exists or is being changed; try again, or choose another name.",
    429: "Azure limits the rate of requests; run the command again later, it continues where it stopped.",
}


class Cloud:
    """The clients for one configuration. Each is imported and created when it is first used.

    Args:
        config: subscription, resource group, workspace and names of the resources.
        credential: an azure-core TokenCredential; None creates a DefaultAzureCredential.
    """

    def __init__(self, config: Config, credential: Any = None) -> None:
        self.config = config
        self._credential = credential
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
        """
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError, map_error
        from azure.core.rest import HttpRequest

        params = {"api-version": api, **(query or {})}
        request = HttpRequest(method, f"{ARM}{path}", params=params, json=body)
        response = self.resources.send_request(request)
        classes = {404: ResourceNotFoundError, 409: ResourceExistsError}
        map_error(response.status_code, response, classes)
        response.raise_for_status()
        return response.json() if response.text() else None

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


def is_created_by_us(tags: Mapping[str, str] | None) -> bool:
    """Return whether these tags say that this product created the resource."""
    return (tags or {}).get(CREATED_BY_TAG) == PRODUCT


def is_expired(tags: Mapping[str, str] | None, today: str) -> bool:
    """Return whether the expiry tag is before `today` (ISO date). Without the tag, nothing expires."""
    return bool((tags or {}).get(EXPIRES_TAG)) and (tags or {})[EXPIRES_TAG] < today


def find_resource(get: Callable[[], T]) -> T | None:
    """Return the result of `get`, or None if Azure answers that the resource does not exist.

    Every other error passes: a missing permission is not a missing resource.
    """
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return get()
    except ResourceNotFoundError:
        return None


@contextlib.contextmanager
def named_errors(action: str) -> Iterator[None]:
    """Turn an AzureError into an OpsError of one line: action, Azure's code and first line.

    Args:
        action: what the block does, for example "reading the quota of eastus2".

    Raises:
        OpsError: the block raised an AzureError.
    """
    from azure.core.exceptions import AzureError, ClientAuthenticationError

    try:
        yield
    except ClientAuthenticationError as error:
        raise OpsError(
            f"{action}: not signed in ({_first_line(error)})", "Run `az login`."
        ) from error
    except AzureError as error:
        status = getattr(error, "status_code", None)
        code = (
            getattr(getattr(error, "error", None), "code", None) or status or type(error).__name__
        )
        fix = FIXES.get(status or 0, "")
        raise OpsError(f"{action}: {code}: {_first_line(error)}", fix) from error


def _first_line(error: Exception) -> str:
    text = getattr(error, "message", None) or str(error)
    line = next((line for line in str(text).splitlines() if line.strip()), type(error).__name__)
    return line.strip()[:300]
