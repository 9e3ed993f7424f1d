"""What a run remembers about its flow, its data and the endpoints that it called; no secrets.

Batches write these properties into Prompt flow's store, and `phi3 compare` reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from phi3_tools import Phi3Error
from phi3_tools.client import read_settings

from ..errors import OpsError
from ..flows import FlowDefinition, content_hash
from ..pf import Connections, find_connection

# Names of properties. The values of the endpoints and the connections are JSON, the others are text.
FLOW_VERSION_PROPERTY, FLOW_HASH_PROPERTY = "phi3.flow_version", "phi3.flow_sha256"
ENDPOINTS_PROPERTY, CONNECTIONS_PROPERTY = "phi3.endpoints", "phi3.connections"
DATA_HASH_PROPERTY, PROCESS_PROPERTY = "phi3.data_sha256", "phi3.process"
SYSTEM_METRICS_PROPERTY = "system_metrics"  # Prompt flow's own name
TOKEN_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
SHORT_HASH = 12  # characters of a hash that people read
_CONNECTION_FIELDS = ("endpoint", "contract", "model", "deployment")


@dataclass(frozen=True)
class ConnectionFacts:
    """What a run records about a connection.

    Attributes:
        connection: its name.
        endpoint: host and path of the scoring URL, or None.
        contract: as in the connection, or None; likewise for model and deployment.
    """

    connection: str
    endpoint: str | None = None
    contract: str | None = None
    model: str | None = None
    deployment: str | None = None

    @classmethod
    def of(cls, connection: str, settings: Mapping[str, Any]) -> ConnectionFacts:
        """Return the facts of a connection.

        Args:
            connection: its name.
            settings: its fields. Only those of this class are used, and the endpoint loses the parts
                that may be secret.
        """
        values = {name: str(settings[name]) for name in _CONNECTION_FIELDS if settings.get(name)}
        if "endpoint" in values:
            values["endpoint"] = url_without_secrets(values["endpoint"])
        return cls(connection, **values)

    def to_json(self) -> dict[str, str]:
        """Return the fields that have a value."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class RunProperties:
    """The properties of a run. A property that is not known is None or empty.

    Attributes:
        flow_version: the flow's version.
        flow_sha256: hash of the flow's content.
        endpoints: node -> the connection that it used.
        connections: node -> input -> connection that replaced the flow's.
        data_sha256: hash of the data file.
        process: the process that executed the run, see `describe_this_process`.
        token_counts: name, one of `TOKEN_COUNTS` -> number of tokens.
    """

    flow_version: str | None = None
    flow_sha256: str | None = None
    endpoints: Mapping[str, ConnectionFacts] | None = None
    connections: Connections | None = None
    data_sha256: str | None = None
    process: str | None = None
    token_counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_flow(cls, folder: Path, connections: Connections | None = None) -> RunProperties:
        """Return the properties of a run of a flow that starts now.

        A value that cannot be read is left out: no run fails because of it.

        Args:
            folder: the folder of the flow.
            connections: node -> input -> connection that replaces the flow's.
        """
        if not folder.is_dir():  # the flow is a class or a prompt
            return cls()
        values: dict[str, Any] = {}
        with suppress(OpsError):
            values["flow_sha256"] = content_hash(folder)
        with suppress(OpsError):
            flow = FlowDefinition.read(folder)
            if flow.version is not None:
                values["flow_version"] = str(flow.version)
            names = flow.connection_names(connections or {})
            values["endpoints"] = {node: _connection_facts(name) for node, name in names.items()}
        return cls(**values)

    @classmethod
    def from_properties(cls, properties: Mapping[str, Any]) -> RunProperties:
        """Read the properties of a stored run; values that are not valid are left out."""
        metrics = properties.get(SYSTEM_METRICS_PROPERTY)
        counts = metrics if isinstance(metrics, Mapping) else {}
        return cls(
            flow_version=_text(properties.get(FLOW_VERSION_PROPERTY)),
            flow_sha256=_text(properties.get(FLOW_HASH_PROPERTY)),
            endpoints=_read_endpoints(properties.get(ENDPOINTS_PROPERTY)),
            connections=_read_json(properties.get(CONNECTIONS_PROPERTY)),
            data_sha256=_text(properties.get(DATA_HASH_PROPERTY)),
            process=_text(properties.get(PROCESS_PROPERTY)),
            token_counts={
                name: counts[name] for name in TOKEN_COUNTS if isinstance(counts.get(name), int)
            },
        )

    def to_properties(self) -> dict[str, Any]:
        """Return the properties as Prompt flow's store keeps them."""
        endpoints = self.endpoints
        values = {
            FLOW_HASH_PROPERTY: self.flow_sha256,
            FLOW_VERSION_PROPERTY: self.flow_version,
            ENDPOINTS_PROPERTY: None
            if endpoints is None
            else json.dumps({node: facts.to_json() for node, facts in endpoints.items()}),
            CONNECTIONS_PROPERTY: None
            if self.connections is None
            else json.dumps(self.connections),
            DATA_HASH_PROPERTY: self.data_sha256,
            PROCESS_PROPERTY: self.process,
            SYSTEM_METRICS_PROPERTY: dict(self.token_counts) or None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def facts(self) -> dict[str, str]:
        """Return the properties that people read, by the names that `phi3 compare` prints."""
        facts: dict[str, str] = {}
        if self.flow_version is not None:
            facts["flow version"] = self.flow_version
        if self.flow_sha256 is not None:
            facts["flow content"] = self.flow_sha256[:SHORT_HASH]
        for node, connection in (self.endpoints or {}).items():
            # The name is that of the flow's parameter, because the value replaces it.
            for name, value in connection.to_json().items():
                suffix = "" if name == "connection" else f".{name}"
                facts[f"{node}.connection{suffix}"] = value
        if tokens := self.token_counts.get("total_tokens"):
            facts["tokens"] = f"{tokens:,}"
        return facts


def url_without_secrets(url: str) -> str:
    """Return host and path of a URL. Its query, user name and password may be secrets."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] + parts.path


def _connection_facts(name: str) -> ConnectionFacts:
    """Return the facts of a connection of the local store; only its name if it cannot be read."""
    try:
        settings = read_settings(find_connection(name))
    except (OpsError, Phi3Error):
        return ConnectionFacts(name)
    return ConnectionFacts.of(name, {each: getattr(settings, each) for each in _CONNECTION_FIELDS})


def _read_endpoints(text: Any) -> dict[str, ConnectionFacts] | None:
    names = ("connection", *_CONNECTION_FIELDS)
    try:
        return {
            node: ConnectionFacts(**{name: str(facts[name]) for name in names if name in facts})
            for node, facts in _read_json(text).items()
        }
    except (AttributeError, TypeError):
        return None


def _read_json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
