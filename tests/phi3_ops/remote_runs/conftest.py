"""A copy of flows/qa with a data file, and submissions to a workspace that is never contacted."""

from __future__ import annotations

import pytest

from phi3_ops import paths
from phi3_ops.azure.cloud import Cloud
from phi3_ops.azure.config import Config
from phi3_ops.flows.content import copy_flow
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.remote_runs.cluster import ClusterSubmission
from phi3_ops.remote_runs.foundry import FoundrySubmission
from phi3_ops.remote_runs.request import BatchRequest, ClusterRequest


@pytest.fixture
def files(tmp_path):
    copy_flow(paths.FLOWS / "qa", tmp_path / "qa")
    (tmp_path / "data.jsonl").write_text('{"question": "one"}\n')
    return tmp_path


@pytest.fixture
def cloud():
    workspace = {"subscription_id": "0" * 36, "resource_group": "rg", "workspace": "work"}
    return Cloud(Config.model_validate({"azure": workspace}), credential=object())


@pytest.fixture
def request_for(files):
    """Return a function that makes a request of a class, with other settings."""

    def make(kind, flow="qa", **settings):
        columns = settings.pop("columns", {"input_data": "${data.question}"})
        settings = {"title": "qa", **settings}
        return kind(FlowDefinition.read(files / flow), files / "data.jsonl", columns, **settings)

    return make


@pytest.fixture
def on_cluster(cloud, request_for):
    """Return a function that makes a submission to a cluster."""
    return lambda **settings: ClusterSubmission(cloud, request_for(ClusterRequest, **settings))


@pytest.fixture
def on_foundry(cloud, request_for):
    """Return a function that makes a submission to a Foundry project."""
    return lambda **settings: FoundrySubmission(cloud, request_for(BatchRequest, **settings))
