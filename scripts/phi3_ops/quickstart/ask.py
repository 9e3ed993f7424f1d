"""One question to a flow, with either engine."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from ..errors import OpsError
from ..pf import PF_COMMAND, PROMPTFLOW, quiet_environment
from ..runs import run_once


def ask_flow(flow: Path, inputs: dict[str, str], engine: str) -> str:
    """Run a flow once, and return its output `answer`.

    Args:
        flow: folder of the flow.
        inputs: values of the flow's inputs.
        engine: `phi3`, or `promptflow` for `pf flow test`.

    Raises:
        OpsError: the flow failed.
    """
    return (
        flow_test(flow, inputs) if engine == PROMPTFLOW else str(run_once(flow, inputs)["answer"])
    )


def flow_test(flow: Path, inputs: dict[str, str]) -> str:
    """Run `pf flow test` and return the output `answer` of the flow.

    Args:
        flow: folder of the flow.
        inputs: values of the flow's inputs.

    Raises:
        OpsError: the flow failed.
    """
    command = [*PF_COMMAND, "flow", "test", "--flow", str(flow)]
    command += ["--inputs", *(f"{name}={value}" for name, value in inputs.items())]
    done = subprocess.run(command, env=quiet_environment(), capture_output=True, text=True)
    outputs = re.search(r"^\{$.*", done.stdout, re.MULTILINE | re.DOTALL)  # after the log
    try:
        return str(json.loads(outputs.group() if outputs else "")["answer"])
    except (ValueError, KeyError) as error:
        output = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise OpsError(f"`pf flow test` of {flow.name} failed: {output[-1]}") from error
