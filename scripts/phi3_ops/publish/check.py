"""Whether an uploaded flow would run: its connections, the endpoints behind them, and the flow itself,
from the staged folder, in a virtual environment that has its requirements.txt alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phi3_tools import Phi3Error
from phi3_tools.client import read_settings

from ..azure import CONNECTIONS_API_VERSION, Cloud, find_resource
from ..errors import OpsError, first_line
from ..files import read_jsonl
from ..flows import FlowDefinition
from ..pf import QUIET_ENVIRONMENT, probe_endpoint, require_connection
from .upload import REQUIREMENTS_FILE

SAMPLES = "samples.jsonl"
CUSTOM = "CustomKeys"  # category and auth type that promptflow reads as a CustomConnection
Fields = Mapping[str, Mapping[str, str]]  # "configs" and "secrets" -> field -> value

# Runs in the new environment; reads what to do from standard input, where no process sees the keys.
# promptflow-core alone is there: so by its invoker, as its serving app does it.
RUNNER = """
import json, sys
from promptflow.connections import CustomConnection
from promptflow.core import Flow
from promptflow.core._serving.flow_invoker import FlowInvoker

class Given(CustomConnection):
    def to_execution_connection_dict(self):
        return self._to_execution_connection_dict()

asked = json.load(sys.stdin)
given = [Given(name=name, **fields) for name, fields in asked["connections"].items()]
invoker = FlowInvoker(Flow.load(asked["flow"]), connection_provider=lambda: given)
json.dump(invoker.invoke(asked["inputs"]), open(asked["out"], "w"))
"""
# A child's environment has none of this one's packages, and no prompt flow store.
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PF_HOME_DIRECTORY")


def check_with_shared_connection(cloud: Cloud, name: str) -> Fields:
    """A connection of the project, with its keys.

    Contract: "Workspace connections - List Secrets".

    Raises:
        OpsError: there is none, or promptflow cannot read it.
    """
    fix = "Write it with `phi3 connect --azure`."
    path = f"{cloud.workspace_path}/connections/{name}/listsecrets"
    found = find_resource(lambda: cloud.rest("POST", path, api=CONNECTIONS_API_VERSION))
    where = cloud.config.azure.workspace
    if found is None:
        raise OpsError(f"{where} has no connection {name!r}", fix)
    properties = found["properties"]
    for field in ("category", "authType"):
        if (value := properties.get(field)) != CUSTOM:
            what = f"the connection {name!r} in {where} has the {field} {value}"
            raise OpsError(what, f"A flow needs {CUSTOM}. {fix}")
    secrets = (properties.get("credentials") or {}).get("keys") or {}
    return {"configs": properties.get("metadata") or {}, "secrets": secrets}


def check_with_local_connection(name: str) -> Fields:
    """A connection of prompt flow's store.

    Raises:
        OpsError: there is none.
    """
    connection = require_connection(name)
    return {"configs": dict(connection.configs), "secrets": dict(connection.secrets)}


def check_answers(name: str, fields: Fields) -> str:
    """Check a connection's fields, and ask the endpoint behind it.

    Returns:
        How it answered, in words.

    Raises:
        OpsError: a field is missing or wrong, or the endpoint does not answer.
    """
    plain = {**fields["configs"], **fields["secrets"]}
    try:
        read_settings(plain)
        key = plain.pop("key", "")
        reply = probe_endpoint(plain, key)
    except Phi3Error as error:
        raise OpsError(f"the connection {name!r}: {first_line(error)}") from error
    return f"answers in {reply.latency_s:.2f} s ({reply.contract} contract)"


def sample_row(folder: Path) -> dict[str, Any]:
    """Inputs to run a flow with: the first of its samples, else the defaults.

    Raises:
        OpsError: an input has neither.
    """
    file = folder / SAMPLES
    row = next(iter(read_jsonl(file)), {}) if file.is_file() else {}
    found = {}
    for name, definition in FlowDefinition.read(folder).inputs.items():
        if name in row:
            found[name] = row[name]
        elif "default" in definition:
            found[name] = definition["default"]
        else:
            what = f"the input {name!r} has no default, and {SAMPLES} no such column"
            raise OpsError(what, f"Put a line with {name!r} into the flow's {SAMPLES}.")
    return found


def run_clean(
    folder: Path,
    connections: Mapping[str, Fields],
    say: Callable[[str], None],
    *,
    limit_s: float,
) -> dict[str, Any]:
    """Run a staged flow once, in a new virtual environment with its requirements.txt and no more.

    Args:
        folder: where the flow is staged.
        connections: name -> fields.
        say: shows a line of progress.
        limit_s: most seconds that each step may take.

    Returns:
        The flow's outputs.

    Raises:
        OpsError: the requirements cannot be installed, or the flow fails.
    """
    inputs = sample_row(folder)
    with tempfile.TemporaryDirectory(prefix="phi3-check-") as place:
        home = Path(place)
        environment = {name: value for name, value in os.environ.items() if name not in OURS}
        environment |= {**QUIET_ENVIRONMENT, "PF_HOME_DIRECTORY": place}
        say("making a clean virtual environment")
        python = clean_python(home / "venv", limit_s)
        say(f"installing {REQUIREMENTS_FILE} into it (at most {limit_s:.0f} s)")
        begun = time.monotonic()
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        words = [*pip, "--requirement", REQUIREMENTS_FILE]
        _run(words, f"pip install -r {REQUIREMENTS_FILE}", limit_s, cwd=folder, env=environment)
        say(f"installed in {time.monotonic() - begun:.0f} s; running the flow in it")
        out = home / "outputs.json"
        asked = {
            "flow": str(folder),
            "connections": connections,
            "inputs": inputs,
            "out": str(out),
        }
        _run(
            [str(python), "-I", "-c", RUNNER],
            "the flow in a clean environment",
            limit_s,
            cwd=folder,
            env=environment,
            input=json.dumps(asked),
        )
        return dict(json.loads(out.read_text(encoding="utf-8")))


def clean_python(venv: Path, limit_s: float) -> Path:
    """The interpreter of a new virtual environment in that folder."""
    _run([sys.executable, "-m", "venv", str(venv)], "python -m venv", limit_s)
    return venv / ("Scripts" if os.name == "nt" else "bin") / "python"


def _run(words: list[str], what: str, limit_s: float, **options: Any) -> None:
    options.setdefault("input", "")  # never the terminal's
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, **options)
    except subprocess.TimeoutExpired as error:
        raise OpsError(f"{what} took more than {limit_s:.0f} s", "Give more: --timeout.") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        # pip's last lines may be notes on itself; Python's is the error.
        wrong = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
        raise OpsError(f"{what} failed: {(wrong or ['it said nothing'])[0].strip()}")


def check_flow(
    folder: Path,
    connection: Callable[[str], Fields],
    say: Callable[[str], None],
    *,
    limit_s: float,
) -> None:
    """Prove that a staged flow would run.

    Args:
        folder: where it is staged.
        connection: gives a connection's fields by its name.
        say: shows a line of progress.
        limit_s: most seconds that each step may take.

    Raises:
        OpsError: what `shared`, `answers` and `run_clean` raise: the first thing that is not ready.
    """
    flow = FlowDefinition.read(folder)
    connections = {}
    for name in sorted(set(flow.connection_names({}).values())):
        fields = connection(name)
        say(f"connection {name!r} is there; its endpoint {check_answers(name, fields)}")
        connections[name] = fields
    if not connections:
        say("no node asks an endpoint")
    outputs = run_clean(folder, connections, say, limit_s=limit_s)
    shown = ", ".join(f"{name}: {_short(value)}" for name, value in outputs.items())
    say(f"it runs: {shown or 'it has no output'}")


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"
