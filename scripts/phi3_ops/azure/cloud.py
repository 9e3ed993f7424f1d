"""Azure's clients, made when they are first asked for, and the tags of everything that is created."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any, TypeVar

from ..errors import OpsError
from .config import Config

T = TypeVar("T")

CREATED_BY_TAG = "created-by"
PRODUCT = "phi3-promptflow"
EXPIRES_TAG = "expires"
OWNER_TAG = "owner"
WORKSPACE_TAG = "workspace"
ARM = "https://management.azure.com"
DATASTORE = "workspaceblobstore"  # where jobs put their outputs unless told otherwise
CONNECTIONS_API_VERSION = "2024-04-01-preview"
NOISY = ("azure", "azure.identity", "msrest")
# Notes on experimental classes, and a template's progress and errors, which are raised as well.
CHATTY = ("azure.ai.ml", "azure.ai.ml._arm_deployments.arm_deployment_executor")


class Cloud:
    """The clients for one configuration. Each is imported and made when it is first used.

    Args:
        config: where everything lies.
        credential: an azure-core TokenCredential; DefaultAzureCredential when left out.
    """

    def __init__(self, config: Config, credential: Any = None) -> None:
        self.config = config
        self._credential = credential
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)

    @cached_property
    def credential(self) -> Any:
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
            fix = "pip install 'phi3-promptflow[azure]'"
            raise OpsError("the Azure packages are not installed", fix) from error
        for name in CHATTY:  # which set their own level when they are imported
            logging.getLogger(name).setLevel(logging.CRITICAL)
        where = self.config.azure
        return MLClient(
            self.credential, where.subscription_id, where.resource_group, where.workspace
        )

    @cached_property
    def identities(self) -> Any:
        from azure.mgmt.msi import ManagedServiceIdentityClient

        client = ManagedServiceIdentityClient(self.credential, self.config.azure.subscription_id)
        return client.user_assigned_identities

    @cached_property
    def authorization(self) -> Any:
        from azure.mgmt.authorization import AuthorizationManagementClient

        return AuthorizationManagementClient(self.credential, self.config.azure.subscription_id)

    @cached_property
    def resources(self) -> Any:
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
        """A call that no SDK has: through an SDK's pipeline, with its sign-in and retries.

        Returns:
            The answer's JSON, or None where it has none.

        Raises:
            azure.core.exceptions.HttpResponseError: the status is not success; ResourceNotFoundError
                for 404, ResourceExistsError for 409.
        """
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError, map_error
        from azure.core.rest import HttpRequest

        params = {"api-version": api, **(query or {})}
        request = HttpRequest(method, f"{ARM}{path}", params=params, json=body)
        response = self.resources.send_request(request)
        known = {404: ResourceNotFoundError, 409: ResourceExistsError}
        map_error(response.status_code, response, known)
        response.raise_for_status()
        return response.json() if response.text() else None

    def has_blob(self, name: str) -> bool:
        """Whether the workspace's own blob storage holds a file of that name.

        Asked with the datastore's secret, as the SDK does for its uploads: many who may deploy have
        no role on the storage account itself.
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
        where = self.config.azure
        return (
            f"{self.group_path}/providers/Microsoft.MachineLearningServices"
            f"/workspaces/{where.workspace}"
        )

    @property
    def group_path(self) -> str:
        where = self.config.azure
        return f"/subscriptions/{where.subscription_id}/resourceGroups/{where.resource_group}"

    def tags(self) -> dict[str, str]:
        """What everything created carries: who made it, for which workspace, for whom, until when.

        The workspace is among them because a resource group may hold several.
        """
        until = datetime.now(timezone.utc) + timedelta(days=self.config.tags.expires_days)
        return {
            CREATED_BY_TAG: PRODUCT,
            WORKSPACE_TAG: self.config.azure.workspace,
            OWNER_TAG: self.config.tags.owner,
            EXPIRES_TAG: until.date().isoformat(),
        }

    def owns(self, tags: Mapping[str, str] | None) -> bool:
        """Whether this product created, for this workspace, what carries these tags."""
        return (
            is_created_by_us(tags)
            and (tags or {}).get(WORKSPACE_TAG) == self.config.azure.workspace
        )


def is_created_by_us(tags: Mapping[str, str] | None) -> bool:
    """Whether this product created what carries these tags."""
    return (tags or {}).get(CREATED_BY_TAG) == PRODUCT


def is_expired(tags: Mapping[str, str] | None, today: str) -> bool:
    """Whether the expiry tag lies before `today` (ISO date). Without a tag nothing expires."""
    return bool((tags or {}).get(EXPIRES_TAG)) and (tags or {})[EXPIRES_TAG] < today


def find_resource(get: Callable[[], T]) -> T | None:
    """What `get` returns, or None where Azure says that it is not there; other errors pass.

    `except Exception` would take a missing permission for a missing resource.
    """
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return get()
    except ResourceNotFoundError:
        return None


@contextlib.contextmanager
def named_errors(doing: str) -> Iterator[None]:
    """Azure's errors as one line: what was being done, Azure's code and first sentence.

    Raises:
        OpsError: in place of an AzureError.
    """
    from azure.core.exceptions import AzureError, ClientAuthenticationError

    try:
        yield
    except ClientAuthenticationError as error:
        raise OpsError(f"{doing}: not signed in ({_first(error)})", "Run `az login`.") from error
    except AzureError as error:
        status = getattr(error, "status_code", None)
        code = (
            getattr(getattr(error, "error", None), "code", None) or status or type(error).__name__
        )
        fix = FIXES.get(status or 0, "")
        raise OpsError(f"{doing}: {code}: {_first(error)}", fix) from error


FIXES = {
    403: "Ask the subscription's owner for the role that this needs.",
    409: "Something of this name is there already or changing; try again, or choose another name.",
    429: "Azure asks to wait; run it again later, it goes on where it stopped.",
}


def _first(error: Exception) -> str:
    text = getattr(error, "message", None) or str(error)
    line = next((line for line in str(text).splitlines() if line.strip()), type(error).__name__)
    return line.strip()[:300]
