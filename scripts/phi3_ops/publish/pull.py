"""Download of an uploaded flow, and its differences from the local one."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import new_folder
from ..flows import flow_files, is_text
from .project import NAME_TAG, VERSION_TAG, FoundryProject


def pull_flow(project: FoundryProject, name: str, out: Path, version: str | None = None) -> Any:
    """Download an uploaded flow.

    Args:
        project: the workspace.
        name: name of the flow.
        out: the folder to write; it must be empty or not exist.
        version: the version; None means that of the newest upload.

    Returns:
        promptflow's `Flow`.

    Raises:
        OpsError: the version is not uploaded, or the folder is not empty.
    """
    uploads = [flow for flow in project.all() if flow.tags[NAME_TAG] == name]
    matches = [flow for flow in uploads if version in (None, flow.tags[VERSION_TAG])]
    if not matches:
        label = f"{name} {version}" if version else name
        versions = ", ".join(flow.tags[VERSION_TAG] for flow in uploads) or "none"
        raise OpsError(f"{label} is not uploaded", f"Uploaded versions of {name}: {versions}.")
    flow = project.get(matches[0].name)
    if flow is None:
        what = f"the flow {matches[0].name} was deleted in the meantime"
        raise OpsError(what, "Run `phi3 flow list --azure`.")
    with new_folder(out) as folder:
        project.download(flow, folder)
    return flow


def diff_flow(local: Path, uploaded: Path) -> list[str]:
    """Return the lines of a unified diff from a local staged flow to an uploaded one."""
    local_files, uploaded_files = (
        {path.relative_to(folder).as_posix(): path for path in flow_files(folder)}
        for folder in (local, uploaded)
    )
    lines: list[str] = []
    for name in sorted({*local_files, *uploaded_files}):
        before, after = (
            files[name].read_bytes() if name in files else b""
            for files in (local_files, uploaded_files)
        )
        if before == after:
            continue
        if not (is_text(before) and is_text(after)):
            lines.append(f"{name} differs")
            continue
        lines += difflib.unified_diff(
            before.decode("utf-8", "replace").splitlines(),
            after.decode("utf-8", "replace").splitlines(),
            f"here/{name}",
            f"uploaded/{name}",
            lineterm="",
        )
    return lines
