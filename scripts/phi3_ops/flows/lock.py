"""Versions of flows: each version's content is locked once, in `flows.lock.json`, and never changes.

    {"chat": {"1.0.0": {"sha256": "…", "tools": "0.1.0"}}}

A version is the flow's `tags.version` (Semantic Versioning 2.0.0), `sha256` is over everything that is
uploaded, `tools` the version of this package whose tools the flow was locked with. `uploads` is there
once a version is published.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .. import paths
from ..errors import OpsError
from ..files import write_json
from ..hashing import parts_sha256
from .definition import FlowDefinition

LOCK_FILE = "flows.lock.json"
PACKAGE = "phi3-promptflow"
# Never uploaded and never hashed, by the name of a file or of a folder above it: caches, leavings of
# editors, secrets. All that begins with a dot is among them, as in the wheel: `.promptflow` holds prompts
# and answers, `.env` keys. `process_log` is where promptflow's process pool logs.
NEVER_UPLOADED = (".*", "__pycache__", "process_log", "*.py[cod]", "*.env", "*.pem", "*~")
# The start of a file in which a NUL tells that it is no text; git looks as far.
TEXT_PROBE_BYTES = 8000
# Semantic Versioning 2.0.0, its own pattern.
_PART = r"(0|[1-9]\d*)"
_LABEL = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
SEMANTIC = re.compile(
    rf"{_PART}\.{_PART}\.{_PART}(-{_LABEL}(\.{_LABEL})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)

LOCKED, NOT_LOCKED, LOCK_CHANGED = "locked", "not locked", "changed"


class LockEntry(BaseModel):
    """One locked version.

    Attributes:
        sha256: of the content; see `content_hash`.
        tools: version of this package.
        uploads: where it was published -> the flow's id there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    tools: str
    uploads: dict[str, str] = Field(default_factory=dict)


Lock = dict[str, dict[str, LockEntry]]  # flow -> version -> entry
_LOCK: TypeAdapter[Lock] = TypeAdapter(Lock)


@dataclass(frozen=True)
class FlowState:
    """A flow as it is, beside what is locked of its version.

    Attributes:
        flow: its file.
        version: its `tags.version`.
        sha256: of its content now.
        entry: what is locked under that version, or None.
        earlier: other versions that are locked.
    """

    flow: FlowDefinition
    version: str
    sha256: str
    entry: LockEntry | None
    earlier: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The flow's: that of its folder."""
        return self.flow.folder.name

    @property
    def status(self) -> str:
        """`LOCKED`, `NEW` or `CHANGED`."""
        if self.entry is None:
            return NOT_LOCKED
        return LOCKED if self.entry.sha256 == self.sha256 else LOCK_CHANGED


def flow_files(folder: Path) -> list[Path]:
    """The files of a flow that are uploaded, sorted by their path.

    Raises:
        OpsError: one of them is a link, which may lead out of the folder.
    """
    found = []
    for place, folders, names in os.walk(folder):
        # What is ignored is not looked into: a run that is under way writes and removes logs there.
        folders[:] = [name for name in folders if not _is_ignored(name)]
        for name in (*folders, *(name for name in names if not _is_ignored(name))):
            path = Path(place, name)
            if path.is_symlink():
                raise OpsError(f"{path} is a link", "Put the file itself there.")
            if path.is_file():
                found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _is_ignored(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in NEVER_UPLOADED)


def copy_flow(folder: Path, target: Path) -> Path:
    """Copy a flow's `files`, and no others; the target."""
    for file in flow_files(folder):
        place = target / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    return target


def content_hash(folder: Path) -> str:
    """SHA-256, in hex, over the names and the content of all that is uploaded of a flow.

    Line ends of text count as LF: git writes CRLF into a checkout on Windows.

    Raises:
        OpsError: a file cannot be read, or is a link.
    """
    parts: list[bytes] = []
    for path in flow_files(folder):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise OpsError(f"cannot read {path}: {error.strerror}", "Check the file.") from error
        if b"\0" not in content[:TEXT_PROBE_BYTES]:
            content = content.replace(b"\r\n", b"\n")
        parts += (path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape"), content)
    return parts_sha256(parts)


def semantic_version(flow: FlowDefinition) -> str:
    """A flow's version.

    Raises:
        OpsError: it has none, or it is not a semantic one.
    """
    found = flow.version
    if isinstance(found, str) and SEMANTIC.fullmatch(found):
        return found
    what = f"{flow.folder / 'flow.dag.yaml'}: `tags.version` is {found!r}"
    raise OpsError(what, "Give three numbers, such as 1.0.0 (Semantic Versioning).")


def read_lock(folder: Path = paths.FLOWS) -> Lock:
    """What is locked of the flows in a folder; nothing where there is no lock yet.

    Raises:
        OpsError: the lock cannot be read.
    """
    file = folder / LOCK_FILE
    fix = "Take it back from version control: its entries never change."
    try:
        return _LOCK.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OpsError(f"cannot read {file}: {error.strerror}", fix) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = " > ".join(str(part) for part in first["loc"])
        raise OpsError(
            f"{file} is no lock: {place + ': ' if place else ''}{first['msg']}", fix
        ) from error


def flow_states(folder: Path = paths.FLOWS) -> list[FlowState]:
    """Every flow of a folder beside its lock, sorted by name.

    Raises:
        OpsError: there is no flow, one cannot be read or has no semantic version, or the lock is none.
    """
    found = sorted(file.parent for file in folder.glob("*/flow.dag.yaml"))
    if not found:
        raise OpsError(
            f"there is no flow in {folder}", "Give the folder that holds the flows' folders."
        )
    lock = read_lock(folder)
    return [_state(FlowDefinition.read(flow), lock.get(flow.name, {})) for flow in found]


def _state(flow: FlowDefinition, locked: Mapping[str, LockEntry]) -> FlowState:
    own = semantic_version(flow)
    earlier = tuple(other for other in locked if other != own)
    return FlowState(flow, own, content_hash(flow.folder), locked.get(own), earlier)


def refuse_changed_flows(found: Iterable[FlowState]) -> None:
    """Raises OpsError naming each flow whose content is no longer that of its version."""
    if changed := [
        f"{state.name} {state.version}" for state in found if state.status == LOCK_CHANGED
    ]:
        fix = "Raise `tags.version` in its flow.dag.yaml: what is locked never changes."
        raise OpsError(f"locked with other content: {', '.join(changed)}", fix)


def lock_flows(folder: Path = paths.FLOWS) -> list[FlowState]:
    """Lock the versions that are not locked yet; what is locked already stays as it is.

    Returns:
        The flows as they were found.

    Raises:
        OpsError: a flow's content changed without a new version (nothing is written then); what
            `states` raises; the lock cannot be written.
    """
    found = flow_states(folder)
    refuse_changed_flows(found)
    if new := [state for state in found if state.status == NOT_LOCKED]:
        lock = read_lock(folder)
        for state in new:
            entry = LockEntry(sha256=state.sha256, tools=version(PACKAGE))
            lock.setdefault(state.name, {})[state.version] = entry
        save_lock(lock, folder)
    return found


def save_lock(lock: Lock, folder: Path = paths.FLOWS) -> None:
    """Write a lock, flows by name and versions in the order in which they were locked.

    Raises:
        OpsError: it cannot be written.
    """
    plain = _LOCK.dump_python(dict(sorted(lock.items())), exclude_defaults=True)
    write_json(folder / LOCK_FILE, plain)
