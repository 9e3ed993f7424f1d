"""The flows of a Foundry project or an Azure ML workspace, through promptflow's own client.

A version is uploaded once, and the lock records its id. promptflow's client never changes the files of an
uploaded flow: a new version is a new flow.
"""

from __future__ import annotations

import contextlib
import io
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..azure import (
    CREATED_BY_TAG,
    PRODUCT,
    Cloud,
    find_resource,
    is_created_by_us,
)
from ..errors import OpsError
from ..flows import FlowState
from ..installation import PACKAGE
from ..names import require_file_name
from ..yaml_files import load_yaml
from .pf_client import foundry_client, foundry_errors
from .stage import display_name

# promptflow's client stores flows in this datastore, the file share of the workspace.
DATASTORE = "workspaceworkingdirectory"
# The service lists at most this many flows, the newest first.
MAX_LISTED = 100
NAME_TAG, VERSION_TAG, HASH_TAG, TOOLS_TAG = "name", "version", "sha256", "tools"


class FoundryProject:
    """The flows of the configured workspace.

    Its methods raise azure-core's errors, and OpsError for flows that promptflow's client refuses.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    @property
    def lock_key(self) -> str:
        """The workspace's name in the lock."""
        azure = self.cloud.config.azure
        return f"{azure.subscription_id}/{azure.resource_group}/{azure.workspace}"

    @property
    def workspace(self) -> str:
        """The name of the workspace."""
        return self.cloud.config.azure.workspace

    @cached_property
    def client(self) -> Any:
        """promptflow's own client of the workspace."""
        return foundry_client(self.cloud)

    def get(self, flow_id: str) -> Any | None:
        """Return promptflow's `Flow` of that id, or None if it does not exist or is archived."""

        def read() -> Any:
            with foundry_errors():
                return self.client.flows.get(flow_id)

        flow = find_resource(read)
        return None if flow is None or flow.is_archived else flow

    def all(self) -> list[Any]:
        """Return the flows that this product uploaded, for any user, among the newest `MAX_LISTED`."""
        with foundry_errors():
            flows = self.client.flows.list(max_results=MAX_LISTED, include_others=True)
        return [
            flow
            for flow in flows
            if is_created_by_us(flow.tags) and {NAME_TAG, VERSION_TAG} <= {*flow.tags}
        ]

    def find(self, state: FlowState) -> Any | None:
        """Return the uploaded flow of a version, or None.

        Raises:
            OpsError: the version is uploaded with other content.
        """
        flow_id = state.entry.uploads.get(self.lock_key) if state.entry else None
        if flow_id and (flow := self.get(flow_id)):
            return _require_same_content(flow, state)
        for flow in self.all():
            if (flow.tags[NAME_TAG], flow.tags[VERSION_TAG]) == (state.name, state.version):
                return _require_same_content(flow, state)
        return None

    def create(self, folder: Path, state: FlowState) -> str:
        """Upload a staged flow, and return its id."""
        dag = load_yaml(folder / "flow.dag.yaml")
        tags = {**dag.get("tags"), **upload_tags(state)}
        # The client prints the flow that it created.
        with foundry_errors(), contextlib.redirect_stdout(io.StringIO()):
            flow = self.client.flows.create_or_update(
                folder, display_name=display_name(state), tags=tags
            )
        return str(flow.name)

    def download(self, flow: Any, folder: Path) -> None:
        """Download the files of an uploaded flow into a folder."""
        from azure.storage.fileshare import ShareDirectoryClient

        store = self.cloud.ml.datastores.get(DATASTORE, include_secrets=True)
        credentials = store.credentials
        secret = getattr(credentials, "account_key", None) or getattr(
            credentials, "sas_token", None
        )
        with ShareDirectoryClient(
            f"https://{store.account_name}.file.{store.endpoint}",
            store.file_share_name,
            str(flow.path).rsplit("/", 1)[0],
            credential=secret or self.cloud.credential,
            **({} if secret else {"token_intent": "backup"}),
        ) as share:
            download_directory(share, folder)


def upload_tags(state: FlowState) -> dict[str, str]:
    """Return the tags that identify an uploaded version."""
    return {
        CREATED_BY_TAG: PRODUCT,
        NAME_TAG: state.name,
        VERSION_TAG: state.version,
        HASH_TAG: state.sha256,
        TOOLS_TAG: state.entry.tools if state.entry else version(PACKAGE),
    }


def _require_same_content(flow: Any, state: FlowState) -> Any:
    if (flow.tags or {}).get(HASH_TAG) != state.sha256:
        what = f"{display_name(state)} is already uploaded with other content ({flow.name})"
        raise OpsError(what, "Raise `tags.version`: an uploaded version never changes.")
    return flow


def download_directory(share: Any, folder: Path) -> None:
    """Download a directory of a file share.

    Args:
        share: azure-storage's `ShareDirectoryClient`.
        folder: the folder to write.

    Raises:
        OpsError: the name of a file leads to another folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for item in share.list_directories_and_files():
        require_file_name(item.name, "a file of the uploaded flow")
        if item.is_directory:
            download_directory(share.get_subdirectory_client(item.name), folder / item.name)
        else:
            content = share.get_file_client(item.name).download_file().readall()
            (folder / item.name).write_bytes(content)
