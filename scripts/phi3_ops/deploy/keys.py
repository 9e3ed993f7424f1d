"""An endpoint's URL and key, from Azure into the connections that the flows use: nobody copies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from phi3_tools import AuthenticationError, Reply

from ..azure import CONNECTIONS_API_VERSION, Cloud, Plan, Step, find_resource
from ..errors import OpsError
from ..pf import NO_KEY, connection_key, load_connection, probe_endpoint, save_connection
from ..waiting import WaitTimeoutError, wait_until
from .model import CONTRACTS, scoring_url
from .rollout import wait_until_settled

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
    endpoint = find_resource(lambda: cloud.ml.online_endpoints.get(config.name))
    if endpoint is None:
        raise OpsError(f"there is no endpoint {config.name}", "Make it with `phi3 deploy`.")
    if not any((endpoint.traffic or {}).values()):
        raise OpsError(
            f"the endpoint {config.name} has no traffic", "Run `phi3 deploy` to its end."
        )
    fields = {"endpoint": scoring_url(endpoint, config.variant), **CONTRACTS[config.variant]}
    if config.auth == "entra":
        return Target({**fields, "auth": "entra"}, "")
    keys = _keys(cloud)
    held = connection_key(cloud.config.connection)
    return Target(fields, held if held and held == keys.secondary_key else str(keys.primary_key))


def plan_key_connection(cloud: Cloud) -> Plan:
    """Local connection and workspace connection, both pointing at the endpoint."""
    return Plan("connect", _steps(cloud, target(cloud)))


def _steps(cloud: Cloud, wanted: Target) -> list[Step]:
    name = cloud.config.connection
    return [
        Step(
            f"connection {name!r} in prompt flow's store",
            lambda: _local_is(name, wanted),
            lambda: save_connection(name, wanted.fields, wanted.key),
            verb="update",
        ),
        Step(
            f"connection {name!r} in the workspace",
            lambda: _shared_is(cloud, name, wanted),
            lambda: write_shared_connection(cloud, name, wanted),
            verb="update",
        ),
    ]


def _write(cloud: Cloud, wanted: Target) -> None:
    """Bring both connections to this without a word."""
    for step in _steps(cloud, wanted):
        if not step.exists():
            step.apply()


def _local_is(name: str, wanted: Target) -> bool:
    there = load_connection(name)
    same = there is not None and dict(there.configs) == wanted.fields
    return same and dict(there.secrets).get("key") == (wanted.key or NO_KEY)


def _shared_is(cloud: Cloud, name: str, wanted: Target) -> bool:
    there = find_resource(
        lambda: cloud.rest("POST", f"{_path(cloud, name)}/listsecrets", api=CONNECTIONS_API_VERSION)
    )
    properties = (there or {}).get("properties") or {}
    keys = ((properties.get("credentials") or {}).get("keys")) or {}
    metadata = properties.get("metadata") or {}
    same = all(metadata.get(field) == value for field, value in wanted.fields.items())
    return same and keys.get("key") == (wanted.key or NO_KEY)


def write_shared_connection(cloud: Cloud, name: str, wanted: Target) -> None:
    """Write the workspace's connection, in the one form that promptflow reads.

    azure-ai-ml's own custom connections have the auth type ApiKey, which promptflow cannot read as a
    CustomConnection: so by REST. Contract: "Workspace connections - Create".
    """
    properties = {
        "category": "CustomKeys",
        "authType": "CustomKeys",
        "target": wanted.fields["endpoint"],
        "isSharedToAll": True,
        "credentials": {"keys": {"key": wanted.key or NO_KEY}},
        "metadata": {**wanted.fields, **METADATA, **cloud.tags()},
    }
    body = {"properties": properties}
    cloud.rest("PUT", _path(cloud, name), api=CONNECTIONS_API_VERSION, body=body)


def _path(cloud: Cloud, name: str) -> str:
    return f"{cloud.workspace_path}/connections/{name}"


def rotate_keys(cloud: Cloud) -> str:
    """Regenerate the endpoint's keys without a moment in which no known key works.

    Both connections are brought to one key first: a run that was cut, or somebody else's, may have left
    them with one each. The key that is not in use is then made new, tried, and written to both; only
    after that is the one that was in use made new as well, which ends it.

    Returns:
        Which of the two keys is now in use.

    Raises:
        OpsError: the endpoint takes no keys, or the new one is not accepted in time; both connections
            then hold one that is.
    """
    config = cloud.config.endpoint
    if config.auth != "key":
        raise OpsError(f"the endpoint {config.name} takes no keys", "There is nothing to rotate.")
    found = target(cloud)
    _write(cloud, found)
    in_use_is_secondary = found.key == _keys(cloud).secondary_key
    new, old = ("primary", "secondary") if in_use_is_secondary else ("secondary", "primary")
    _regenerate(cloud, new)
    fresh = Target(found.fields, str(getattr(_keys(cloud), f"{new}_key")))
    _wait_until_accepted(fresh)
    _write(cloud, fresh)
    _regenerate(cloud, old)
    return new


def _keys(cloud: Cloud) -> Any:
    return cloud.ml.online_endpoints.get_keys(cloud.config.endpoint.name)


def _regenerate(cloud: Cloud, which: str) -> None:
    endpoints, name = cloud.ml.online_endpoints, cloud.config.endpoint.name
    wait_until_settled(lambda: endpoints.get(name))  # a run that was cut may have begun one
    endpoints.begin_regenerate_keys(name, key_type=which).result()


def _wait_until_accepted(fresh: Target) -> None:
    """Ask the endpoint until it accepts the new key.

    Raises:
        OpsError: it refuses the key for longer than `KEY_READY_S`.
    """

    def ask() -> Reply | AuthenticationError:
        try:
            return probe_endpoint(fresh.fields, fresh.key)
        except AuthenticationError as error:
            return error

    try:
        wait_until(
            ask,
            lambda answer: not isinstance(answer, AuthenticationError),
            timeout_s=KEY_READY_S,
            poll_s=KEY_POLL_S,
        )
    except WaitTimeoutError as error:
        fix = "The old key still is."
        raise OpsError("the new key is not accepted", fix) from error.last
