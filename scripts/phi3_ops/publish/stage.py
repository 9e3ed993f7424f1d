"""The staged copy of a locked flow: exactly the files that are uploaded.

promptflow's client uploads a complete folder, including caches and `.env`. So it gets a clean copy.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from .. import paths
from ..errors import OpsError, first_line
from ..flows import (
    NOT_LOCKED,
    FlowDefinition,
    FlowState,
    build_tool_wheel,
    copy_flow,
    flow_states,
    refuse_changed_flows,
    refuse_secrets,
)
from ..installation import PACKAGE
from ..pf import pf_client
from ..yaml_files import load_yaml

REQUIREMENTS_FILE = "requirements.txt"
TOOLS_FILE = ".promptflow/flow.tools.json"


@dataclass(frozen=True)
class StagedFile:
    """A file that is uploaded: its path in the flow's folder, and its size in bytes."""

    path: str
    size: int


def require_locked(name: str, folder: Path = paths.FLOWS) -> FlowState:
    """Return a flow whose present content is locked, with the installed version of the tools.

    Raises:
        OpsError: the folder has no such flow, or the flow differs from its locked version.
    """
    (state,) = flow_states(folder, [name])
    refuse_changed_flows([state])
    if state.status == NOT_LOCKED or state.entry is None:
        raise OpsError(f"{state.label} is not locked", "Run `phi3 flow lock`.")
    installed = version(PACKAGE)
    if state.entry.tools != installed:
        what = f"{state.label} was locked with the tools of {PACKAGE} {state.entry.tools}"
        fix = f"{installed} is installed: raise `tags.version`, and run `phi3 flow lock`."
        raise OpsError(what, fix)
    return state


def display_name(state: FlowState) -> str:
    """Return the name of an uploaded version, such as `chat-v1.0.0`."""
    return f"{state.name}-v{state.version}"


@contextlib.contextmanager
def staged_flow(state: FlowState) -> Iterator[Path]:
    """Yield a temporary folder with the staged copy of a flow; raises as `stage_flow`."""
    with tempfile.TemporaryDirectory(prefix="phi3-flow-") as parent:
        folder = Path(parent) / display_name(state)  # the uploaded folder gets this name
        stage_flow(state.flow.folder, folder)
        yield folder


def stage_flow(flow: Path, folder: Path) -> None:
    """Write the staged copy of a flow into a new folder.

    It consists of the flow's files, the wheel of the tool package, a requirements.txt that installs the
    wheel, and promptflow's description of the tools.

    Raises:
        OpsError: promptflow refuses the flow, or a file contains a key that this machine knows.
    """
    copy_flow(flow, folder)
    wheel = build_tool_wheel().write(folder)
    _append(folder / REQUIREMENTS_FILE, f"./{wheel.name}[promptflow]\n")
    dag = folder / "flow.dag.yaml"
    if "environment" not in load_yaml(dag):
        _append(dag, f"environment:\n  python_requirements_txt: {REQUIREMENTS_FILE}\n")
    _validate(flow, folder)
    refuse_secrets(folder)


def staged_files(folder: Path) -> list[StagedFile]:
    """Return every file of a staged copy, sorted by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [StagedFile(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]


def _append(file: Path, text: str) -> None:
    """Append lines to a file; its present bytes stay unchanged."""
    content = file.read_bytes() if file.exists() else b""
    if content and not content.endswith(b"\n"):
        content += b"\n"
    file.write_bytes(content + text.encode())


def _validate(flow: Path, folder: Path) -> None:
    """Run promptflow's own check, which also writes `TOOLS_FILE`: the portal displays tools from it."""
    fix = f"See `pf flow validate --source {flow}`."
    try:
        result = pf_client().flows.validate(folder)
    except Exception as error:  # whatever promptflow raises
        raise OpsError(f"{flow} is refused: {first_line(error)}", fix) from error
    if not result.passed:
        field, message = next(iter(result.error_messages.items()))
        raise OpsError(f"{flow} is refused: {field}: {first_line(Exception(message))}", fix)
    _require_tools(flow, folder)
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)


def _require_tools(flow: Path, folder: Path) -> None:
    """Raise OpsError if a node uses a package tool that is not installed; promptflow accepts that."""
    tools = json.loads((folder / TOOLS_FILE).read_text(encoding="utf-8"))["package"]
    for node in FlowDefinition.read(folder).nodes:
        source = node.get("source")
        tool = source.get("tool") if isinstance(source, dict) else None
        if tool is not None and tool not in tools:
            what = f"{flow} is refused: the node {node['name']} uses {tool}, which is not installed"
            raise OpsError(what, "Check the name of the tool, and install its package.")
