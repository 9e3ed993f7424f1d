"""Versions of flows: the content of each version is locked once in `flows.lock.json` and never changes.

    {"chat": {"1.0.0": {"sha256": "…", "tools": "1.0.0"}}}

The version is the flow's `tags.version` (Semantic Versioning 2.0.0). `sha256` is the hash of the files
that are uploaded. `tools` is the version of this package that was installed when the flow was locked.
`uploads` is added when the version is uploaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .. import paths
from ..errors import OpsError
from ..files import write_json
from ..installation import PACKAGE
from ..names import PATTERN, did_you_mean
from .content import content_hash
from .definition import FlowDefinition

LOCK_FILE = "flows.lock.json"
# The pattern that Semantic Versioning 2.0.0 suggests.
_PART = r"(0|[1-9]\d*)"
_LABEL = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
SEMANTIC = re.compile(
    rf"{_PART}\.{_PART}\.{_PART}(-{_LABEL}(\.{_LABEL})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)

LOCKED, NOT_LOCKED, LOCK_CHANGED = "locked", "not locked", "changed"


FlowId = Annotated[str, Field(pattern=f"^{PATTERN}$")]


class LockEntry(BaseModel):
    """One locked version.

    Attributes:
        sha256: hash of the content; see `content_hash`.
        tools: version of this package.
        uploads: workspace -> id of the uploaded flow.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    tools: str
    uploads: dict[str, FlowId] = Field(default_factory=dict)


Lock = dict[str, dict[str, LockEntry]]  # flow -> version -> entry
_LOCK: TypeAdapter[Lock] = TypeAdapter(Lock)


@dataclass(frozen=True)
class FlowState:
    """A flow compared with the lock entry of its version.

    Attributes:
        flow: the flow's definition.
        version: its `tags.version`.
        sha256: hash of its present content.
        entry: lock entry of that version; None if the version is not locked.
        other_versions: versions of the flow that are also locked.
    """

    flow: FlowDefinition
    version: str
    sha256: str
    entry: LockEntry | None
    other_versions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The flow's name, which is that of its folder."""
        return self.flow.folder.name

    @property
    def label(self) -> str:
        """The flow's name and version, as messages show them."""
        return f"{self.name} {self.version}"

    @property
    def status(self) -> str:
        """`LOCKED`, `NOT_LOCKED` or `LOCK_CHANGED`."""
        if self.entry is None:
            return NOT_LOCKED
        return LOCKED if self.entry.sha256 == self.sha256 else LOCK_CHANGED


def semantic_version(flow: FlowDefinition) -> str:
    """Return a flow's version.

    Raises:
        OpsError: the version is missing or is not a semantic version.
    """
    if isinstance(flow.version, str) and SEMANTIC.fullmatch(flow.version):
        return flow.version
    what = f"{flow.folder / 'flow.dag.yaml'}: `tags.version` is {flow.version!r}"
    raise OpsError(what, "Use three numbers, such as 1.0.0 (Semantic Versioning).")


def read_lock(folder: Path = paths.FLOWS) -> Lock:
    """Return the lock of a folder of flows; it is empty if the file does not exist yet.

    Raises:
        OpsError: the lock file cannot be read or is not valid.
    """
    file = folder / LOCK_FILE
    fix = "Restore it from version control: its entries never change."
    try:
        return _LOCK.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OpsError(f"cannot read {file}: {error.strerror}", fix) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = " > ".join(str(part) for part in first["loc"])
        message = f"{where}: {first['msg']}" if where else first["msg"]
        raise OpsError(f"{file} is not a valid lock file: {message}", fix) from error


def flow_states(folder: Path = paths.FLOWS, names: Collection[str] = ()) -> list[FlowState]:
    """Return flows of a folder, compared with the lock and sorted by name.

    Args:
        folder: the folder that contains the flows' folders and the lock file.
        names: names of flows; if empty, every flow of the folder.

    Raises:
        OpsError: the folder does not contain these flows, a flow cannot be read or has no semantic
            version, or the lock file is not valid.
    """
    flow_folders = sorted(file.parent for file in folder.glob("*/flow.dag.yaml"))
    if not flow_folders:
        fix = "Give the folder that contains the flows' folders."
        raise OpsError(f"{folder} does not contain a flow", fix)
    present = [flow.name for flow in flow_folders]
    if unknown := sorted(set(names) - set(present)):
        fix = f"The flows in it are {', '.join(present)}{did_you_mean(unknown[0], present)}"
        raise OpsError(f"{folder} does not contain a flow {unknown[0]!r}", fix)
    if names:
        flow_folders = [flow for flow in flow_folders if flow.name in names]
    lock = read_lock(folder)
    return [
        _flow_state(FlowDefinition.read(flow), lock.get(flow.name, {})) for flow in flow_folders
    ]


def _flow_state(flow: FlowDefinition, entries: Mapping[str, LockEntry]) -> FlowState:
    present = semantic_version(flow)
    others = tuple(other for other in entries if other != present)
    return FlowState(flow, present, content_hash(flow.folder), entries.get(present), others)


def refuse_changed_flows(states: Iterable[FlowState]) -> None:
    """Raise OpsError if the content of a flow differs from that of its locked version."""
    if changed := [state.label for state in states if state.status == LOCK_CHANGED]:
        fix = "Raise `tags.version` in its flow.dag.yaml: a locked version never changes."
        raise OpsError(f"locked with other content: {', '.join(changed)}", fix)


def lock_flows(folder: Path = paths.FLOWS, names: Collection[str] = ()) -> list[FlowState]:
    """Lock the versions that are not locked yet. Versions that are locked stay unchanged.

    Args:
        folder: the folder that contains the flows' folders and the lock file.
        names: names of flows; if empty, every flow of the folder.

    Returns:
        The flows as they were before.

    Raises:
        OpsError: the content of a flow changed without a new version, in which case nothing is written;
            the flows cannot be read, as for `flow_states`; or the lock cannot be written.
    """
    states = flow_states(folder, names)
    refuse_changed_flows(states)
    if new := [state for state in states if state.status == NOT_LOCKED]:
        lock = read_lock(folder)
        for state in new:
            entry = LockEntry(sha256=state.sha256, tools=version(PACKAGE))
            lock.setdefault(state.name, {})[state.version] = entry
        save_lock(lock, folder)
    return states


def save_lock(lock: Lock, folder: Path = paths.FLOWS) -> None:
    """Write a lock: flows sorted by name, versions in the order in which they were locked.

    Raises:
        OpsError: the file cannot be written.
    """
    plain = _LOCK.dump_python(dict(sorted(lock.items())), exclude_defaults=True)
    write_json(folder / LOCK_FILE, plain)
