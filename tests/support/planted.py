"""Resources of a workspace in the fake Azure, planted without a request."""

from __future__ import annotations

from azure_fixtures import WORKSPACE, plant

SIZE = "Standard_NC24ads_A100_v4"
PAST, FUTURE = "2020-01-01", "2999-01-01"


def tags(expires=FUTURE, **other):
    """Return the tags of a resource that this product created."""
    owned = {"created-by": "phi3-promptflow", "workspace": WORKSPACE, "owner": "me"}
    return {**owned, "expires": expires, **other}


def endpoint(azure, name="phi3-endpoint", tagged=None, traffic=None):
    """Plant an endpoint."""
    tagged = tags() if tagged is None else tagged
    properties = {"authMode": "Key", "traffic": traffic or {"blue": 100}}
    return plant(azure, f"onlineEndpoints/{name}", {"tags": tagged, "properties": properties})


def deployment(azure, name="blue", tagged=None, parent="phi3-endpoint", count=1):
    """Plant a deployment."""
    tagged = tags() if tagged is None else tagged
    body = {"tags": tagged, "sku": {"name": "Default", "capacity": count}}
    body["properties"] = {"endpointComputeType": "Managed", "instanceType": SIZE}
    return plant(azure, f"onlineEndpoints/{parent}/deployments/{name}", body)


def connection(azure, name="phi3", tagged=None):
    """Plant a connection of the workspace."""
    properties = {"category": "CustomKeys", "authType": "CustomKeys", "target": "x"}
    properties["metadata"] = tags() if tagged is None else tagged
    return plant(azure, f"connections/{name}", {"properties": properties})


def cluster(azure, name, tagged, nodes=0):
    """Plant a cluster with running nodes."""
    inner = {"vmSize": SIZE, "currentNodeCount": nodes, "scaleSettings": {"maxNodeCount": 1}}
    body = {"tags": tagged, "properties": {"computeType": "AmlCompute", "properties": inner}}
    return plant(azure, f"computes/{name}", body)
