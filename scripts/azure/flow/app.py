"""Serves a flow in a container with promptflow's serving app: uvicorn --factory app:make_app

On Azure ML, the flow is the mounted model and its connections are those of the workspace. Everywhere
else, the flow is in the folder flow/ and its connections are in connections.json. A value `${env:NAME}`
in that file is read from the environment variable NAME; all keys are such values.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from promptflow.connections import CustomConnection

from phi3_tools.serving import CheckedRequests

HERE = Path(__file__).resolve().parent
# If one of these variables is set, promptflow reads the connections from a workspace.
WORKSPACE_VARIABLES = (
    "PRT_CONFIG_OVERRIDE",
    "AML_DEPLOYMENT_RESOURCE_ID",
    "PROMPTFLOW_CONNECTION_PROVIDER",
)


class ProvidedConnection(CustomConnection):
    """A connection for promptflow's `connection_provider` argument.

    promptflow calls `to_execution_connection_dict` of the connections that this argument returns, but its
    own classes name that method with a leading underscore.
    """

    def to_execution_connection_dict(self) -> dict[str, Any]:
        return self._to_execution_connection_dict()


def read_connections() -> list[ProvidedConnection]:
    """Return the connections in connections.json."""
    fields_by_name = json.loads((HERE / "connections.json").read_text(encoding="utf-8"))
    return [ProvidedConnection(name=name, **fields) for name, fields in fields_by_name.items()]


def make_app() -> Any:
    """Return promptflow's app behind the checks of its requests."""
    app = make_flow_app()
    types = {name: definition.type.value for name, definition in app.flow.inputs.items()}
    return CheckedRequests(app, types)


def make_flow_app() -> Any:
    """Return promptflow's app, which has the routes `/score`, `/health` and `/swagger.json`."""
    from promptflow.core._serving.app import create_app

    # Otherwise an exporter that promptflow imports connects to a control plane on the internet.
    os.environ.setdefault("APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED", "true")
    if any(os.environ.get(name) for name in WORKSPACE_VARIABLES):
        return create_app(engine="fastapi", extension_type="azureml")
    os.environ.setdefault("PROMPTFLOW_PROJECT_PATH", str(HERE / "flow"))
    return create_app(engine="fastapi", connection_provider=read_connections)
