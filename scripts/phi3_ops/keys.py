"""An endpoint's URL and key, from Azure into the connections that the flows use: nobody copies them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from phi3_tools import AuthenticationError

from . import connect
from .cloud import CONNECTIONS_API, Cloud, find
from .deploy import CONTRACTS
from .errors import OpsError
from .plan import Plan, Step

# A new key takes a moment to reach every front end.
KEY_READY_S = 120.0
KEY_POLL_S = 2.0
# What the portal's drop-down and promptflow's own reader look for. Everything else in `metadata` becomes
# the connection's `configs`, everything in `credentials.keys` its `secrets`.
METADATA = {
    "azureml.flow.connection_type": "Custom",
    "azureml.flow.module": "promptflow.connections",
}


@dataclass(frozen=True)
class Target:
    """The endpoint as it is now: a connection's fields and key."""

    fields: dict[str, str]
    key: str


def target(cloud: Cloud) -> Target:
    """Read the configured endpoint's URL and key: the one of the two that the connection holds already,
    else the primary.

    Raises:
        OpsError: there is no such endpoint, or nothing is deployed to it.
    """
    config = cloud.config.endpoint
    endpoint = find(lambda: cloud.ml.online_endpoints.get(config.name))
    if endpoint is None:
        raise OpsError(f"there is no endpoint {config.name}", "Make it with `phi3 deploy`.")
    if not any((endpoint.traffic or {}).values()):
        raise OpsError(
            f"the endpoint {config.name} has no traffic", "Run `phi3 deploy` to its end."
        )
    fields = {"endpoint": str(endpoint.scoring_uri), "contract": CONTRACTS[config.variant]}
    if config.auth == "entra":
        return Target({**fields, "auth": "entra"}, "")
    keys = cloud.ml.online_endpoints.get_keys(config.name)
    held = connect.key_of(cloud.config.connection)
    return Target(fields, held if held and held == keys.secondary_key else str(keys.primary_key))


def plan(cloud: Cloud) -> Plan:
    """Local connection and workspace connection, both pointing at the endpoint."""
    found = target(cloud)
    name = cloud.config.connection
    steps = [
        Step(
            f"connection {name!r} in prompt flow's store",
            lambda: _local_is(name, found),
            lambda: connect.save(name, found.fields, found.key),
            verb="update",
        ),
        Step(
            f"connection {name!r} in the workspace",
            lambda: _shared_is(cloud, name, found),
            lambda: put(cloud, name, found),
            verb="update",
        ),
    ]
    return Plan("connect", steps)


def _local_is(name: str, wanted: Target) -> bool:
    there = connect.load(name)
    same = there is not None and dict(there.configs) == wanted.fields
    return same and dict(there.secrets).get("key") == (wanted.key or connect.NO_KEY)


def _shared_is(cloud: Cloud, name: str, wanted: Target) -> bool:
    there = find(
        lambda: cloud.rest("POST", f"{_path(cloud, name)}/listsecrets", api=CONNECTIONS_API)
    )
    properties = (there or {}).get("properties") or {}
    keys = ((properties.get("credentials") or {}).get("keys")) or {}
    metadata = properties.get("metadata") or {}
    same = all(metadata.get(field) == value for field, value in wanted.fields.items())
    return same and keys.get("key") == (wanted.key or connect.NO_KEY)


def put(cloud: Cloud, name: str, wanted: Target) -> None:
    """Write the workspace's connection, in the one form that promptflow reads.

    azure-ai-ml's own custom connections have the auth type ApiKey, which promptflow cannot read as a
    CustomConnection: so by REST. Contract: "Workspace connections - Create".
    """
    properties = {
        "category": "CustomKeys",
        "authType": "CustomKeys",
        "target": wanted.fields["endpoint"],
        "isSharedToAll": True,
        "credentials": {"keys": {"key": wanted.key or connect.NO_KEY}},
        "metadata": {**wanted.fields, **METADATA, **cloud.tags()},
    }
    body = {"properties": properties}
    cloud.rest("PUT", _path(cloud, name), api=CONNECTIONS_API, body=body)


def _path(cloud: Cloud, name: str) -> str:
    return f"{cloud.workspace_path}/connections/{name}"


def rotate(cloud: Cloud) -> str:
    """Regenerate the endpoint's keys without a moment in which no known key works.

    The key that is not in use is made new, tried, and written to both connections; only then is the
    one that was in use made new as well, which ends it.

    Returns:
        Which of the two keys is now in use.

    Raises:
        OpsError: the endpoint takes no keys, or the new one is not accepted in time; both connections
            are then as they were.
    """
    config, name = cloud.config.endpoint, cloud.config.connection
    if config.auth != "key":
        raise OpsError(f"the endpoint {config.name} takes no keys", "There is nothing to rotate.")
    found = target(cloud)
    endpoints = cloud.ml.online_endpoints
    in_use = connect.key_of(name)
    was_secondary = in_use is not None and in_use == endpoints.get_keys(config.name).secondary_key
    new, old = ("primary", "secondary") if was_secondary else ("secondary", "primary")
    endpoints.begin_regenerate_keys(config.name, key_type=new).result()
    fresh = Target(found.fields, str(getattr(endpoints.get_keys(config.name), f"{new}_key")))
    _wait_until_accepted(fresh)
    connect.save(name, fresh.fields, fresh.key)
    put(cloud, name, fresh)
    endpoints.begin_regenerate_keys(config.name, key_type=old).result()
    return new


def _wait_until_accepted(fresh: Target) -> Any:
    end = time.monotonic() + KEY_READY_S
    while True:
        try:
            return connect.check(fresh.fields, fresh.key)
        except AuthenticationError as error:
            if time.monotonic() > end:
                raise OpsError("the new key is not accepted", "The old one still is.") from error
            time.sleep(KEY_POLL_S)
