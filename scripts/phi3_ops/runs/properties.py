"""What a run remembers of its flow and of the endpoints that it asked: written by batches, read by
`phi3 compare`. No secret is among it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from phi3_tools import Phi3Error
from phi3_tools.client import read_settings

from ..errors import OpsError
from ..flows import FlowDefinition, content_hash
from ..pf import load_connection

FLOW_VERSION_PROPERTY, FLOW_HASH_PROPERTY = "phi3.flow_version", "phi3.flow_sha256"
# JSON: node -> `connection` and, of what that says, `endpoint` (host and path), `contract`, `model`,
# `deployment`.
ENDPOINTS_PROPERTY = "phi3.endpoints"
FIELDS = ("endpoint", "contract", "model", "deployment")
SHORT_HASH = 12  # characters of a hash that people read

Connections = Mapping[str, Mapping[str, str]]


def run_properties(folder: Path, connections: Connections | None = None) -> dict[str, str]:
    """The properties of a run that starts now. What cannot be read is left out: no run fails by it.

    Args:
        folder: the flow's.
        connections: node -> input -> connection, in place of what the flow says.
    """
    if not folder.is_dir():  # a flow that is a class or a prompt
        return {}
    found = {}
    with suppress(OpsError):
        found[FLOW_HASH_PROPERTY] = content_hash(folder)
    with suppress(OpsError):
        flow = FlowDefinition.read(folder)
        if flow.version is not None:
            found[FLOW_VERSION_PROPERTY] = str(flow.version)
        names = flow.connection_names(connections or {})
        found[ENDPOINTS_PROPERTY] = json.dumps(
            {node: _endpoint(name) for node, name in names.items()}
        )
    return found


def _endpoint(name: str) -> dict[str, str]:
    """What a connection says without its secrets; its name alone where it cannot be read."""
    try:
        settings = read_settings(load_connection(name))
    except (OpsError, Phi3Error):
        return {"connection": name}
    return describe_connection(name, {field: getattr(settings, field) for field in FIELDS})


def describe_connection(connection: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """What a run records of a connection.

    Args:
        connection: its name.
        fields: what it says; those of `FIELDS` are taken, and the endpoint without what may be secret.
    """
    known = {field: str(fields[field]) for field in FIELDS if fields.get(field)}
    if "endpoint" in known:
        known["endpoint"] = url_without_secrets(known["endpoint"])
    return {"connection": connection, **known}


def url_without_secrets(url: str) -> str:
    """Host and path of a URL; its query, and a user's name and password, may be secrets."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] + parts.path


def readable_properties(properties: Mapping[str, Any]) -> dict[str, str]:
    """The same by the names that people read; nothing of a run that recorded nothing."""
    found = {}
    if FLOW_VERSION_PROPERTY in properties:
        found["flow version"] = str(properties[FLOW_VERSION_PROPERTY])
    if FLOW_HASH_PROPERTY in properties:
        found["flow content"] = str(properties[FLOW_HASH_PROPERTY])[:SHORT_HASH]
    with suppress(ValueError, AttributeError, KeyError):
        for node, fields in json.loads(properties.get(ENDPOINTS_PROPERTY, "{}")).items():
            # Named as the parameter of the flow that it takes the place of.
            found[f"{node}.connection"] = str(fields.pop("connection"))
            found |= {f"{node}.connection.{field}": str(value) for field, value in fields.items()}
    return found
