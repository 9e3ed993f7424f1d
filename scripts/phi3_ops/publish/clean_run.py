"""One run of a staged flow in a new virtual environment that contains only its requirements.txt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import read_jsonl
from ..flows import FlowDefinition
from ..pf import PROMPTFLOW, QUIET_ENVIRONMENT
from .connection_fields import ConnectionFields
from .stage import REQUIREMENTS_FILE

SAMPLES = "samples.jsonl"
ENGINE_PACKAGES = ("jinja2>=3.1.6", "pyyaml>=6.0")  # the extra `flow`
# This script runs in the new environment. It reads its task from standard input, so that no other process
# sees the keys. The environment contains only promptflow-core, so the script uses the invoker of its
# serving app.
RUNNER = """
import json, sys
from promptflow.connections import CustomConnection
from promptflow.core import Flow
from promptflow.core._serving.flow_invoker import FlowInvoker

class ExecutableConnection(CustomConnection):
    def to_execution_connection_dict(self):
        return self._to_execution_connection_dict()

task = json.load(sys.stdin)
connections = [ExecutableConnection(name=name, **fields) for name, fields in task["connections"].items()]
invoker = FlowInvoker(Flow.load(task["flow"]), connection_provider=lambda: connections)
json.dump(invoker.invoke(task["inputs"]), open(task["out"], "w"))
"""
# Likewise with this project's engine.
PHI3_RUNNER = """
import json, sys
from phi3_tools.flow import CustomConnection, Engine, load_flow

task = json.load(sys.stdin)
connections = {name: CustomConnection(name, **fields) for name, fields in task["connections"].items()}
result = Engine(load_flow(task["flow"]), connections).run(task["inputs"])
if result.error:
    raise result.error
json.dump(result.outputs, open(task["out"], "w"))
"""
# Without these variables, a child process sees neither this environment's packages nor this store.
OWN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PF_HOME_DIRECTORY")


@dataclass(frozen=True)
class CleanEnvironment:
    """Where the commands of a clean run are executed.

    Attributes:
        folder: the staged flow, which is the working directory.
        variables: the environment variables.
        limit_s: time limit of each command, in seconds.
    """

    folder: Path
    limit_s: float
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, command: Sequence[str], what: str, text: str = "") -> None:
        """Run a command with this text on its standard input.

        Args:
            command: the words of the command.
            what: name of the command, for the error.
            text: text for standard input, which is never that of the terminal.

        Raises:
            OpsError: the command fails, or takes longer than the limit.
        """
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=self.limit_s,
                cwd=self.folder,
                env=self.variables,
                input=text,
            )
        except subprocess.TimeoutExpired as error:
            what = f"{what} took more than {self.limit_s:.0f} s"
            raise OpsError(what, "Raise --timeout.") from error
        if done.returncode:
            raise OpsError(f"{what} failed: {_error_line(done.stderr)}")


def run_clean(
    folder: Path,
    connections: Mapping[str, ConnectionFields],
    say: Callable[[str], None],
    *,
    limit_s: float,
    engine: str = PROMPTFLOW,
) -> dict[str, Any]:
    """Run a staged flow once, in a new virtual environment that contains only its requirements.txt.

    Args:
        folder: the staged flow.
        connections: name of a connection -> its fields.
        say: prints a line of progress.
        limit_s: time limit of each step, in seconds.
        engine: `PROMPTFLOW`, or `PHI3` for this project's engine.

    Returns:
        The outputs of the flow.

    Raises:
        OpsError: the requirements cannot be installed, or the flow fails.
    """
    inputs = sample_row(folder)
    with tempfile.TemporaryDirectory(prefix="phi3-check-") as home:
        variables = {n: value for n, value in os.environ.items() if n not in OWN_VARIABLES}
        variables |= {**QUIET_ENVIRONMENT, "PF_HOME_DIRECTORY": home}
        environment = CleanEnvironment(folder, limit_s, variables)
        say("making a clean virtual environment")
        python = clean_python(Path(home) / "venv", environment)
        say(f"installing {REQUIREMENTS_FILE} into it (at most {limit_s:.0f} s)")
        start = time.monotonic()
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--requirement", REQUIREMENTS_FILE]
        pip += ENGINE_PACKAGES if engine != PROMPTFLOW else ()
        environment.run(pip, f"pip install -r {REQUIREMENTS_FILE}")
        say(f"installed in {time.monotonic() - start:.0f} s; running the flow in it")
        out = Path(home) / "outputs.json"
        task = {
            "flow": str(folder),
            "connections": {name: asdict(fields) for name, fields in connections.items()},
            "inputs": inputs,
            "out": str(out),
        }
        runner = RUNNER if engine == PROMPTFLOW else PHI3_RUNNER
        command = [str(python), "-I", "-c", runner]
        environment.run(command, "the flow in a clean environment", json.dumps(task))
        return dict(json.loads(out.read_text(encoding="utf-8")))


def sample_row(folder: Path) -> dict[str, Any]:
    """Return the inputs of the run: the first row of the flow's samples, or else the defaults.

    Raises:
        OpsError: an input has neither.
    """
    file = folder / SAMPLES
    row = next(iter(read_jsonl(file)), {}) if file.is_file() else {}
    inputs = {}
    for name, definition in FlowDefinition.read(folder).inputs.items():
        if name in row:
            inputs[name] = row[name]
        elif "default" in definition:
            inputs[name] = definition["default"]
        else:
            what = f"the input {name!r} has no default, and {SAMPLES} has no such column"
            raise OpsError(what, f"Add {name!r} to the first line of the flow's {SAMPLES}.")
    return inputs


def clean_python(venv: Path, environment: CleanEnvironment) -> Path:
    """Create a virtual environment in a folder, and return its interpreter."""
    environment.run([sys.executable, "-m", "venv", str(venv)], "python -m venv")
    return venv / ("Scripts" if os.name == "nt" else "bin") / "python"


def _error_line(stderr: str) -> str:
    """Return pip's first error, or else the last line, which is the error of Python."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    return errors[0] if errors else "it printed nothing"
