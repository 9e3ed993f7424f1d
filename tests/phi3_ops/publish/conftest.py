"""A connection to an endpoint that echoes, and a folder with the chat flow."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from echo_endpoint import KEY, echo_endpoint
from flow_uploads import copy_as_version
from phi3_ops import paths
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.publish.project import FoundryProject


@pytest.fixture
def endpoint():
    with echo_endpoint() as endpoint:
        save_connection("phi3", {"endpoint": endpoint.url, "max_attempts": "1"}, KEY)
        yield endpoint
        delete_connection("phi3")


@pytest.fixture
def home(tmp_path):
    """A folder with the chat flow, to change and to lock."""
    copy_as_version(paths.FLOWS / "chat", tmp_path / "flows" / "chat")
    return tmp_path / "flows"


@dataclass
class StubFlows:
    """promptflow's `flows` of a workspace, in memory."""

    flows: list[Any] = field(default_factory=list)
    created: list[Any] = field(default_factory=list)

    def get(self, flow_id):
        from azure.core.exceptions import ResourceNotFoundError

        for flow in self.flows:
            if flow.name == flow_id:
                return flow
        raise ResourceNotFoundError(flow_id)

    def list(self, max_results, include_others):
        assert include_others
        return self.flows[:max_results]

    def create_or_update(self, folder, display_name, tags):
        print("the client prints the flow")
        self.created.append((folder, display_name, tags))
        return SimpleNamespace(name=f"id-{len(self.created)}", tags=tags)


class StubProject(FoundryProject):
    """A project whose flows are in memory."""

    def __init__(self, *flows, workspace="ws-one"):
        azure = SimpleNamespace(subscription_id="s", resource_group="rg", workspace=workspace)
        super().__init__(SimpleNamespace(config=SimpleNamespace(azure=azure)))
        self.stub = StubFlows(list(flows))
        self.__dict__["client"] = SimpleNamespace(flows=self.stub)


@pytest.fixture
def project():
    """Makes a `StubProject` with some uploaded flows."""
    return StubProject


@pytest.fixture
def uploaded():
    """Makes an uploaded flow, as promptflow's client returns it."""

    def make(flow_id, tags, archived=False):
        return SimpleNamespace(name=flow_id, tags=tags, is_archived=archived)

    return make
