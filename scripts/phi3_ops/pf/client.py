"""Prompt flow's SDK, made quiet before its first import: no telemetry, no trace service, no log spam."""

from __future__ import annotations

import os
from typing import Any

# Read by promptflow or by what it imports, when they are imported.
QUIET_ENVIRONMENT = {
    # The exporter that it imports asks a control plane on the internet otherwise, telemetry or not.
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    # And after a quarter of an hour it reports how it was used.
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    # Otherwise the first call starts a service on port 23333.
    "PF_TRACING_SKIP_LOCAL_SETUP": "true",
}
LOG_LEVEL = "CRITICAL"


def quiet_environment() -> dict[str, str]:
    """This process's environment with the above; what the user has set wins."""
    return {**QUIET_ENVIRONMENT, **os.environ}


def pf_client() -> Any:
    """A `PFClient` for the local store.

    Prompt flow sends telemetry unless its configuration says otherwise. Where the user has not decided
    yet, `telemetry.enabled: false` is written there; `pf config set telemetry.enabled=true` undoes it.
    """
    os.environ.update(quiet_environment())
    os.environ.setdefault("PF_LOGGING_LEVEL", LOG_LEVEL)
    from promptflow._sdk._configuration import Configuration

    configuration = Configuration.get_instance()
    if configuration.get_telemetry_consent() is None:
        configuration.set_telemetry_consent(False)
    from promptflow.client import PFClient

    return PFClient()
