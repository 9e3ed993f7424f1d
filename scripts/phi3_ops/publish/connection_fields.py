"""The fields of a flow's connection: from the project or from the local store, and whether they work."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field

from phi3_tools import Phi3Error
from phi3_tools.client import read_settings
from phi3_tools.connections import Connection

from ..azure import (
    CONFIG_FILE,
    CONFIG_VARIABLE,
    CONNECTIONS_API_VERSION,
    Cloud,
    find_resource,
    load_config,
    named_errors,
)
from ..errors import OpsError, first_line
from ..pf import probe_endpoint, require_connection

log = logging.getLogger("phi3_ops")
CUSTOM = "CustomKeys"  # category and auth type that promptflow reads as a CustomConnection


@dataclass(frozen=True)
class ConnectionFields:
    """The fields of a connection, as promptflow's CustomConnection takes them."""

    configs: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def all(self) -> dict[str, str]:
        """Both kinds of fields; Foundry lets users store either as a secret."""
        return {**self.configs, **self.secrets}


def shared_connection(cloud: Cloud, name: str) -> ConnectionFields:
    """Return the fields of a connection of the project, with its keys.

    Contract: "Workspace connections - List Secrets".

    Raises:
        OpsError: the connection does not exist, or promptflow cannot read it.
    """
    fix = "Create it with `phi3 connect --azure`."
    path = f"{cloud.workspace_path}/connections/{name}/listsecrets"
    connection = find_resource(lambda: cloud.rest("POST", path, api=CONNECTIONS_API_VERSION))
    workspace = cloud.config.azure.workspace
    if connection is None:
        raise OpsError(f"{workspace} has no connection {name!r}", fix)
    properties = connection["properties"]
    for key in ("category", "authType"):
        if (value := properties.get(key)) != CUSTOM:
            what = f"the connection {name!r} in {workspace} has the {key} {value}"
            raise OpsError(what, f"A flow needs {CUSTOM}. {fix}")
    secrets = (properties.get("credentials") or {}).get("keys") or {}
    return ConnectionFields(properties.get("metadata") or {}, secrets)


def find_workspace_connection(name: str) -> Connection | None:
    """Return a connection of the configured workspace with its keys, or None.

    Nothing is looked up without a phi3.yaml. A connection that cannot be read counts as missing.
    """
    if not (os.environ.get(CONFIG_VARIABLE) or CONFIG_FILE.is_file()):
        return None
    try:
        cloud = Cloud(load_config())
        with named_errors("connections"):
            fields = shared_connection(cloud, name)
    except (OpsError, ImportError) as error:
        log.info("the connection %r is not read from the workspace: %s", name, first_line(error))
        return None
    return Connection(
        name, fields.configs, fields.secrets, f"the workspace {cloud.config.azure.workspace}"
    )


def local_connection(name: str) -> ConnectionFields:
    """Return the fields of a connection of promptflow's store.

    Raises:
        OpsError: the connection does not exist.
    """
    connection = require_connection(name)
    return ConnectionFields(dict(connection.configs), dict(connection.secrets))


def check_connection(name: str, fields: ConnectionFields) -> str:
    """Check the fields of a connection, and send its endpoint a question.

    Returns:
        How the endpoint answered, in words.

    Raises:
        OpsError: a field is missing or wrong, or the endpoint does not answer.
    """
    values = fields.all
    try:
        read_settings(values)
        key = values.pop("key", "")
        reply = probe_endpoint(values, key)
    except Phi3Error as error:
        raise OpsError(f"the connection {name!r}: {first_line(error)}") from error
    return f"answers in {reply.latency_s:.2f} s ({reply.contract} contract)"
