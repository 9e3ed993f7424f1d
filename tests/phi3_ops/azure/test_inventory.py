"""The list of resources: what is owned, what is left out, when an endpoint expires."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from offline_cloud import OWNED, missing, offline_cloud, operations
from phi3_ops.azure.cloud import Cloud
from phi3_ops.azure.config import load_config
from phi3_ops.azure.inventory import (
    BYPRODUCTS,
    InventoryItem,
    deployments_of,
    expiry_date,
    read_inventory,
)
from phi3_ops.errors import OpsError
from planted import connection, endpoint

SIZE = "Standard_NC24ads_A100_v4"
CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def item(kind="endpoint", name="e", expires="2026-01-01", parent=""):
    return InventoryItem(kind, name, True, {"expires": expires, "owner": "me"}, parent=parent)


def test_owner_and_expiry_are_tags():
    assert (item().owner, item().expires) == ("me", "2026-01-01")
    assert (
        InventoryItem("endpoint", "e", False).owner,
        InventoryItem("x", "y", False).expires,
    ) == (
        "",
        "",
    )


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ((), "2026-01-01"),
        (("2025-12-31",), "2026-01-01"),
        (("2026-02-01", "2026-01-15"), "2026-02-01"),
        (("2026-02-01", ""), "2026-01-01"),
    ],
)
def test_an_endpoint_expires_with_the_last_of_its_deployments(dates, expected):
    deployments = [item("deployment", f"d{n}", date, "e") for n, date in enumerate(dates)]
    items = [item(), *deployments, item("deployment", "other", "2999-01-01", "another")]
    assert deployments_of(items, items[0]) == deployments
    assert expiry_date(items, items[0]) == expected


def test_an_endpoint_without_a_date_never_expires():
    endpoint = item(expires="")
    assert expiry_date([endpoint, item("deployment", "d", "2026-01-01", "e")], endpoint) == ""


EMPTY = {
    "online_endpoints": operations(list=missing),
    "online_deployments": operations(list=missing),
    "models": operations(list=missing),
    "compute": operations(list=missing),
}


def cloud_with(rest=missing, group=missing, resources=(), identity=missing, **ml):
    manager = SimpleNamespace(
        resource_groups=operations(get=group),
        resources=operations(list_by_resource_group=lambda name: resources),
    )
    cloud = offline_cloud(
        {
            "ml": SimpleNamespace(**EMPTY | ml),
            "resources": manager,
            "identities": operations(get=identity),
        }
    )
    cloud.rest = rest
    return cloud


def test_a_workspace_that_does_not_exist_contains_nothing():
    assert read_inventory(cloud_with()) == []


def test_a_refusal_is_one_line():
    from azure.core.exceptions import HttpResponseError

    def refuse():
        raise HttpResponseError("You may not.")

    with pytest.raises(OpsError, match="^listing the resources: .*You may not"):
        read_inventory(cloud_with(online_endpoints=operations(list=refuse)))


def test_endpoints_and_their_deployments():
    endpoint = SimpleNamespace(
        name="e",
        tags=OWNED,
        provisioning_state="Succeeded",
        properties={"createdAt": "2026-01-02T03:04:05.678"},
        traffic={"d": 90},
    )
    deployment = SimpleNamespace(
        name="d",
        tags=None,
        creation_context=SimpleNamespace(created_at=CREATED),
        instance_type=SIZE,
        instance_count=2,
        provisioning_state="Updating",
    )
    cloud = cloud_with(
        online_endpoints=operations(list=lambda: [endpoint]),
        online_deployments=operations(list=lambda endpoint_name: [deployment]),
    )
    first, second = read_inventory(cloud)
    since = "2026-01-02T03:04:05"
    assert first == InventoryItem("endpoint", "e", True, OWNED, state="Succeeded", since=since)
    assert second == InventoryItem(
        "deployment", "d", False, {}, SIZE, 2, "Updating", 90, since, parent="e"
    )


def test_nodes_are_counted_for_our_clusters_alone():
    paths = []

    def rest(method, path, api, query=None):
        paths.append(path)
        if not path.endswith("/computes/ours"):
            return missing()
        return {
            "properties": {
                "createdOn": "2026-01-02T03:04:05Z",
                "properties": {"currentNodeCount": 3},
            }
        }

    clusters = [
        SimpleNamespace(name=name, tags=tags, size=SIZE, provisioning_state="Succeeded")
        for name, tags in (("ours", OWNED), ("theirs", {}))
    ]
    items = read_inventory(cloud_with(rest, compute=operations(list=lambda: clusters)))
    assert [(item.name, item.owned, item.instances) for item in items] == [
        ("ours", True, 3),
        ("theirs", False, 0),
    ]
    assert not [path for path in paths if path.endswith("/computes/theirs")]


def test_models_and_connections():
    def rest(method, path, api, query=None):
        metadata = {**OWNED, "endpoint": "https://x"}
        return {"value": [{"name": "phi3", "properties": {"metadata": metadata}}]}

    model = SimpleNamespace(name="m", version="3", tags=OWNED)
    items = read_inventory(cloud_with(rest, models=operations(list=lambda name: [model])))
    assert [(item.kind, item.name, item.owned) for item in items] == [
        ("model", "m:3", True),
        ("connection", "phi3", True),
    ]


def test_byproducts_of_azure_are_left_out_and_unknown_types_are_not():
    resources = [
        SimpleNamespace(type=kind, name=f"{prefix} x", tags={}, id="/id")
        for kind, prefix in BYPRODUCTS.items()
    ]
    resources += [
        SimpleNamespace(type="Microsoft.Insights/actionGroups", name="theirs", tags={}, id="/a"),
        SimpleNamespace(type="Microsoft.KeyVault/vaults", name="v", tags=OWNED, id="/v"),
    ]
    group = SimpleNamespace(tags=OWNED)
    items = read_inventory(cloud_with(group=lambda name: group, resources=resources))
    assert [(item.kind, item.name, item.owned) for item in items] == [
        ("other", "theirs", False),
        ("key vault", "v", True),
        ("resource group", "rg", True),
    ]


def test_every_page_of_a_list_is_read(provisioned):
    """The fake answers two items per page."""
    names = [f"connection-{number}" for number in range(5)]
    for name in names:
        connection(provisioned, name)
    for number in range(3):
        endpoint(provisioned, f"endpoint-{number}")
    items = read_inventory(Cloud(load_config()))
    assert [item.name for item in items if item.kind == "connection"] == names
    assert len([item for item in items if item.kind == "endpoint"]) == 3
    assert {"workspace", "identity", "registry", "key vault"} <= {item.kind for item in items}
