"""A flow behind promptflow's own serving app, in a container: uvicorn --factory app:make_app

On Azure ML the flow is the mounted model, and its connections are the workspace's. Anywhere else the flow
lies in flow/, and connections.json says what its connections are; a value `${env:NAME}` there, as every
key is, comes from the environment.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from promptflow.connections import CustomConnection

HERE = Path(__file__).resolve().parent
# Where any of them is set, promptflow looks for connections in a workspace.
AZURE = ("PRT_CONFIG_OVERRIDE", "AML_DEPLOYMENT_RESOURCE_ID", "PROMPTFLOW_CONNECTION_PROVIDER")


class Given(CustomConnection):
    """promptflow asks what a callable gave it by a name that its own connections do not have."""

    def to_execution_connection_dict(self) -> dict[str, Any]:
        return self._to_execution_connection_dict()


def connections() -> list[Given]:
    """The connections of connections.json."""
    listed = json.loads((HERE / "connections.json").read_text(encoding="utf-8"))
    return [Given(name=name, **fields) for name, fields in listed.items()]


def make_app() -> Any:
    """promptflow's app, with `/score`, `/health` and `/swagger.json`."""
    from promptflow.core._serving.app import create_app

    # Otherwise an exporter that promptflow imports asks a control plane on the internet.
    os.environ.setdefault("APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED", "true")
    if any(os.environ.get(name) for name in AZURE):
        return create_app(engine="fastapi", extension_type="azureml")
    os.environ.setdefault("PROMPTFLOW_PROJECT_PATH", str(HERE / "flow"))
    return create_app(engine="fastapi", connection_provider=connections)
