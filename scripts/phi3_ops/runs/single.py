"""Run a flow once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_tools import Phi3Error
from phi3_tools.flow import Engine, FlowError, load_flow

from ..errors import OpsError, first_line
from ..pf import require_connection


def run_once(flow: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Run a flow once with this project's engine, and return its outputs.

    Args:
        flow: the folder of the flow.
        inputs: values of the flow's inputs.

    Raises:
        OpsError: the flow cannot run, or it failed.
    """
    try:
        with Engine(load_flow(flow), require_connection) as engine:
            result = engine.run(inputs)
    except (FlowError, Phi3Error) as error:
        raise OpsError(f"{flow} cannot run: {first_line(error)}") from error
    if result.error is not None:
        raise OpsError(f"the flow {flow.name} failed: {first_line(result.error)}") from result.error
    return result.outputs
