"""Upload of a locked flow, and the list of local and uploaded versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..azure import Plan, Step
from ..flows import LOCK_FILE, FlowState, read_lock, save_lock
from .project import HASH_TAG, NAME_TAG, VERSION_TAG, FoundryProject
from .stage import display_name, staged_files

UPLOADED, OTHER_CONTENT, NOT_UPLOADED = "uploaded", "other content", "not uploaded"
NOT_LOCAL = "not here"
NO_ID = "–"


@dataclass(frozen=True)
class FlowRow:
    """A version of a flow, on this machine and in the workspace.

    Attributes:
        flow: name of the flow.
        version: the version.
        lock_status: status in the local lock, or `NOT_LOCAL`.
        upload_status: `UPLOADED`, `OTHER_CONTENT` or `NOT_UPLOADED`.
        flow_id: id of the uploaded flow, or `NO_ID`.
    """

    flow: str
    version: str
    lock_status: str
    upload_status: str
    flow_id: str = NO_ID


def flow_rows(states: Iterable[FlowState], uploads: Iterable[Any]) -> list[FlowRow]:
    """Return a row for each local flow, then a row for each version that is only uploaded.

    Args:
        states: the local flows.
        uploads: promptflow's `Flow`s; see `FoundryProject.all`.
    """
    remaining = {(flow.tags[NAME_TAG], flow.tags[VERSION_TAG]): flow for flow in uploads}
    rows = []
    for state in states:
        flow = remaining.pop((state.name, state.version), None)
        if flow is None:
            rows.append(FlowRow(state.name, state.version, state.status, NOT_UPLOADED))
            continue
        same = flow.tags.get(HASH_TAG) == state.sha256
        status = UPLOADED if same else OTHER_CONTENT
        rows.append(FlowRow(state.name, state.version, state.status, status, str(flow.name)))
    only_uploaded = [
        FlowRow(name, version, NOT_LOCAL, UPLOADED, str(flow.name))
        for (name, version), flow in sorted(remaining.items(), key=lambda item: item[0])
    ]
    return rows + only_uploaded


def plan_upload(project: FoundryProject, state: FlowState, folder: Path) -> Plan:
    """Return the plan that uploads a staged flow, unless it is uploaded, and writes its id to the lock.

    If the plan is interrupted in between, the next run finds the flow by its tags and writes the id.

    Args:
        project: the target.
        state: a locked flow.
        folder: its staged copy.
    """
    files = staged_files(folder)
    size = sum(file.size for file in files)
    lock_folder = state.flow.folder.parent
    created: list[str] = []  # ids of this run; the service may list a new flow only later

    def uploaded_id() -> str | None:
        if created:
            return created[0]
        flow = project.find(state)
        return None if flow is None else str(flow.name)

    def is_recorded() -> bool:
        entry = read_lock(lock_folder)[state.name][state.version]
        flow_id = uploaded_id()
        return flow_id is not None and entry.uploads.get(project.lock_key) == flow_id

    upload = Step(
        f"flow {display_name(state)} in {project.workspace} ({len(files)} files, {size:,} bytes)",
        lambda: uploaded_id() is not None,
        lambda: created.append(project.create(folder, state)),
    )
    record = Step(
        f"its id in {lock_folder / LOCK_FILE}",
        is_recorded,
        lambda: record_upload(lock_folder, state, project.lock_key, str(uploaded_id())),
        verb="note",
        state="noted",
    )
    return Plan(f"upload {display_name(state)}", [upload, record])


def record_upload(lock_folder: Path, state: FlowState, lock_key: str, flow_id: str) -> None:
    """Write the id of an uploaded version to the lock, under the workspace's key."""
    lock = read_lock(lock_folder)
    entry = lock[state.name][state.version]
    uploads = {**entry.uploads, lock_key: flow_id}
    lock[state.name][state.version] = entry.model_copy(update={"uploads": uploads})
    save_lock(lock, lock_folder)
