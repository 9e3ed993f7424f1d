"""Write an endpoint's URL and key into the connections that the flows use, and rotate its keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from phi3_tools import AuthenticationError, Reply

from ..azure import (
    CONNECTIONS_API_VERSION,
    ENDPOINTS_API_VERSION,
    Cloud,
    Plan,
    Step,
    find_resource,
)
from ..errors import OpsError
from ..pf import (
    NO_KEY,
    connection_key,
    load_connection,
    probe_endpoint,
    refuse_replacing_connection,
    save_connection,
)
from ..waiting import WaitTimeoutError, wait_until
from .model import CONTRACTS, scoring_url
from .rollout import wait_until_settled

# A new key takes some seconds to reach every front end.
KEY_READY_S = 120.0
KEY_POLL_S = 2.0
# Metadata by which the portal and promptflow recognize a custom connection. promptflow reads all other
# metadata as the connection's `configs`, and `credentials.keys` as its `secrets`.
CUSTOM_CONNECTION = {
    "azureml.flow.connection_type": "Custom",
    "azureml.flow.module": "promptflow.connections",
}


@dataclass(frozen=True)
class ConnectionContent:
    """The fields and the key of a connection to the endpoint; the key is "" for Entra sign-in."""

    fields: dict[str, str]
    key: str


def read_endpoint(cloud: Cloud) -> ConnectionContent:
    """Return the content of a connection to the configured endpoint.

    Its key is the secondary one if the local connection has that one, and else the primary one.

    Raises:
        OpsError: the endpoint does not exist, or has no traffic.
    """
    config = cloud.config.endpoint
    endpoint = find_resource(lambda: cloud.ml.online_endpoints.get(config.name))
    if endpoint is None:
        raise OpsError(
            f"the endpoint {config.name} does not exist", "Create it with `phi3 deploy`."
        )
    if not any((endpoint.traffic or {}).values()):
        raise OpsError(f"the endpoint {config.name} has no traffic", "Run `phi3 deploy` again.")
    url = scoring_url(str(endpoint.scoring_uri), config.served_variant)
    fields = {"endpoint": url, **CONTRACTS[config.served_variant]}
    if config.auth == "entra":
        return ConnectionContent({**fields, "auth": "entra"}, "")
    keys = _keys(cloud)
    current = connection_key(cloud.config.connection)
    uses_secondary = bool(current) and current == keys.secondary_key
    key = keys.secondary_key if uses_secondary else keys.primary_key
    return ConnectionContent(fields, str(key))


def plan_key_connection(cloud: Cloud, *, replace: bool = False) -> Plan:
    """Return the plan that writes the local and the workspace's connection to the endpoint.

    Args:
        cloud: clients and configuration.
        replace: whether a local connection to another endpoint may be replaced.

    Raises:
        OpsError: the endpoint does not exist, or has no traffic; or the local connection points to
            another endpoint.
    """
    return Plan("connect", _steps(cloud, _replacing_content(cloud, replace)))


def _replacing_content(cloud: Cloud, replace: bool) -> ConnectionContent:
    """Return the content of a connection to the endpoint, if it may replace the local connection's."""
    content = read_endpoint(cloud)
    if not replace:
        fix = "Give --replace, or set another `connection` in the configuration."
        refuse_replacing_connection(cloud.config.connection, content.fields["endpoint"], fix)
    return content


def _steps(cloud: Cloud, content: ConnectionContent) -> list[Step]:
    name = cloud.config.connection
    return [
        Step(
            f"connection {name!r} in Prompt flow's store",
            lambda: _local_matches(name, content),
            lambda: save_connection(name, content.fields, content.key),
            verb="update",
        ),
        Step(
            f"connection {name!r} in the workspace",
            lambda: _workspace_matches(cloud, name, content),
            lambda: write_workspace_connection(cloud, name, content),
            verb="update",
        ),
    ]


def _write(cloud: Cloud, content: ConnectionContent) -> None:
    """Write both connections, and print nothing."""
    for step in _steps(cloud, content):
        if not step.exists():
            step.apply()


def _local_matches(name: str, content: ConnectionContent) -> bool:
    connection = load_connection(name)
    if connection is None or dict(connection.configs) != content.fields:
        return False
    return dict(connection.secrets).get("key") == (content.key or NO_KEY)


def _workspace_matches(cloud: Cloud, name: str, content: ConnectionContent) -> bool:
    path = f"{_path(cloud, name)}/listsecrets"
    answer = find_resource(lambda: cloud.rest("POST", path, api=CONNECTIONS_API_VERSION))
    properties = (answer or {}).get("properties") or {}
    keys = ((properties.get("credentials") or {}).get("keys")) or {}
    metadata = properties.get("metadata") or {}
    same = all(metadata.get(field) == value for field, value in content.fields.items())
    return same and keys.get("key") == (content.key or NO_KEY)


def write_workspace_connection(cloud: Cloud, name: str, content: ConnectionContent) -> None:
    """Write the workspace's connection in the form that promptflow reads.

    This uses REST, because azure-ai-ml's custom connections have the auth type ApiKey, which promptflow
    cannot read as a CustomConnection. Contract: "Workspace connections - Create".
    """
    properties = {
        "category": "CustomKeys",
        "authType": "CustomKeys",
        "target": content.fields["endpoint"],
        "isSharedToAll": True,
        "credentials": {"keys": {"key": content.key or NO_KEY}},
        "metadata": {**content.fields, **CUSTOM_CONNECTION, **cloud.tags()},
    }
    body = {"properties": properties}
    cloud.rest("PUT", _path(cloud, name), api=CONNECTIONS_API_VERSION, body=body)


def _path(cloud: Cloud, name: str) -> str:
    return f"{cloud.workspace_path}/connections/{name}"


def rotate_keys(cloud: Cloud, *, replace: bool = False) -> str:
    """Regenerate both keys of the endpoint without downtime.

    1. Both connections get the same key: an interrupted run, or a run on another machine, may have left
       them with different ones.
    2. The key that is not in use is regenerated, tried, and written into both connections.
    3. The other key is regenerated, which makes its old value invalid.

    Args:
        cloud: clients and configuration.
        replace: whether a local connection to another endpoint may be replaced.

    Returns:
        The key that is now in use, "primary" or "secondary".

    Raises:
        OpsError: the endpoint does not use keys; or the local connection points to another endpoint; or
            Azure has not changed a key, or the endpoint does not accept the new one in time, and both
            connections have a key that works.
    """
    config = cloud.config.endpoint
    if config.auth != "key":
        raise OpsError(
            f"the endpoint {config.name} does not use keys", "There is nothing to rotate."
        )
    present = _replacing_content(cloud, replace)
    _write(cloud, present)
    uses_secondary = present.key == _keys(cloud).secondary_key
    new, old = ("primary", "secondary") if uses_secondary else ("secondary", "primary")
    _regenerate(cloud, new)
    renewed = ConnectionContent(present.fields, _key(cloud, new))
    _wait_until_accepted(renewed)
    _write(cloud, renewed)
    _regenerate(cloud, old)
    return new


def _keys(cloud: Cloud) -> Any:
    return cloud.ml.online_endpoints.get_keys(cloud.config.endpoint.name)


def _key(cloud: Cloud, which: str) -> str:
    return str(getattr(_keys(cloud), f"{which}_key"))


def _regenerate(cloud: Cloud, which: str) -> None:
    """Let Azure replace a key by a new one.

    This uses REST: the SDK sends the present key as `keyValue`, which Azure documents as the value that
    the key is set to. Contract: "Online Endpoints - Regenerate Keys".

    Raises:
        OpsError: the key is the same as before.
    """
    endpoints, name = cloud.ml.online_endpoints, cloud.config.endpoint.name
    wait_until_settled(lambda: endpoints.get(name))  # an interrupted run may have begun a change
    before = _key(cloud, which)
    path = f"{cloud.workspace_path}/onlineEndpoints/{name}/regenerateKeys"
    body = {"keyType": which.capitalize()}
    cloud.rest("POST", path, api=ENDPOINTS_API_VERSION, body=body)
    try:
        wait_until(
            lambda: _key(cloud, which),
            lambda key: key != before,
            timeout_s=KEY_READY_S,
            poll_s=KEY_POLL_S,
        )
    except WaitTimeoutError as error:
        what = f"Azure has not changed the {which} key of the endpoint {name}"
        raise OpsError(what, "The connections are unchanged and work; try again later.") from error


def _wait_until_accepted(renewed: ConnectionContent) -> None:
    """Ask the endpoint until it accepts the new key.

    Raises:
        OpsError: the endpoint refuses the key for longer than `KEY_READY_S`.
    """

    def ask() -> Reply | AuthenticationError:
        try:
            return probe_endpoint(renewed.fields, renewed.key)
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
        what = "the endpoint does not accept the new key"
        raise OpsError(what, "The old key still works; try again later.") from error.last
