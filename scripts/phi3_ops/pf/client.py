"""Prompt flow's SDK, silenced before its first import: no telemetry, no trace service, no log output."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ..errors import OpsError

# Prompt flow and its dependencies read these variables when they are imported.
QUIET_ENVIRONMENT = {
    # Without it, the telemetry exporter calls a control plane on the internet, even with telemetry off.
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    # Without it, the exporter reports its own use after a quarter of an hour.
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    # Without it, the first call starts a service on port 23333.
    "PF_TRACING_SKIP_LOCAL_SETUP": "true",
}
LOG_LEVEL = "CRITICAL"
# The `pf` command, with this process's Python.
PF_COMMAND = (sys.executable, "-m", "promptflow._cli.pf")


def quiet_environment() -> dict[str, str]:
    """Return this process's environment plus `QUIET_ENVIRONMENT`; variables that are set already win."""
    return {**QUIET_ENVIRONMENT, **os.environ}


def prepare() -> None:
    """Silence and configure Prompt flow. Call it before Prompt flow is imported for the first time.

    Prompt flow sends telemetry unless its configuration forbids it. If the user has not decided yet,
    this function writes `telemetry.enabled: false` there; `pf config set telemetry.enabled=true` undoes
    it.

    Raises:
        OpsError: the folder of Prompt flow's store cannot be created.
    """
    _check_store()
    os.environ.update(quiet_environment())
    os.environ.setdefault("PF_LOGGING_LEVEL", LOG_LEVEL)
    from promptflow._sdk._configuration import Configuration

    configuration = Configuration.get_instance()
    if configuration.get_telemetry_consent() is None:
        configuration.set_telemetry_consent(False)


def _check_store() -> None:
    """Raise OpsError if the store's folder cannot be created: Prompt flow's import fails without it."""
    folder = Path(os.environ.get("PF_HOME_DIRECTORY") or Path.home() / ".promptflow")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"Prompt flow's store {folder} cannot be created: {error.strerror}"
        raise OpsError(what, "Set PF_HOME_DIRECTORY to a folder that can be written.") from error


def pf_client() -> Any:
    """Return a `PFClient` for the local store, after `prepare()`."""
    prepare()
    from promptflow.client import PFClient

    return PFClient()
