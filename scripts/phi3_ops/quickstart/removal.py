"""Remove what a quickstart made, and say what stays and why."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from .. import paths
from ..endpoint import ENDPOINTS_FOLDER, stop_all_endpoints
from ..errors import OpsError
from ..files import load_json_object, read_marker, remove_own_files, require_own_folder
from ..models import list_models
from ..pf import (
    StoredRun,
    connection_url,
    delete_connection,
    delete_stored_run,
    list_stored_runs,
)
from ..runs import url_without_secrets
from ..training import CACHE_NAMES, stop_trainings
from .lock import only_quickstart
from .results import PAGE, SUMMARY_FILE
from .steps import DATA_FOLDER, MODEL_FOLDER

COMPARE_FOLDER = "compare"  # of the comparison that the quickstart suggests
SERVICE_URL = "http://127.0.0.1:23333/heartbeat"  # of the service that `pf` commands start
SERVICE_TIMEOUT_S = 2.0


def remove_quickstart(workdir: Path, confirm: Callable[[str], bool]) -> list[str]:
    """Undo a quickstart: stop its endpoints, delete its connections, its runs and its files.

    A connection is deleted only if it still leads to an endpoint of the workdir. The runs over data of
    the workdir are deleted if the user agrees.

    Args:
        workdir: the folder of the quickstart.
        confirm: asks the user a question, and returns whether the answer was yes.

    Returns:
        One line for each thing that was removed, and for each thing that stays.

    Raises:
        OpsError: the workdir exists, but it is not the workdir of a quickstart, it may not be removed, or
            a quickstart is running in it.
    """
    if not os.path.lexists(workdir):
        missing = f"{workdir} does not exist, so it contains nothing to remove"
        lines = _remove_runs(workdir, confirm) or [missing]
        return lines + _other_quickstarts(workdir)
    require_own_folder(workdir)
    marker = read_marker(workdir)
    if marker is None or SUMMARY_FILE not in marker.files:
        what = f"{workdir} is not the folder of a quickstart"
        raise OpsError(what, "Nothing was removed; check --workdir.")
    with only_quickstart(workdir):
        shared = _shared_model(workdir)
        lines = _remove_runs(workdir, confirm)
        if stop_trainings(workdir / MODEL_FOLDER):
            lines.append("stopped the training of a quickstart that was killed")
        for name in stop_all_endpoints(workdir):
            lines.append(f"stopped the {'chat page' if name == PAGE else 'endpoint'} {name!r}")
        lines += [_remove_connection(name, url) for name, url in marker.connections.items()]
        if shared:
            lines.append(
                f"kept the base model {shared}, which other projects can use too; "
                f"`phi3 models --remove {shared}` deletes it"
            )
        lines += _service_line()
        return lines + _remove_files(workdir) + _other_quickstarts(workdir)


def _remove_connection(name: str, recorded: str) -> str:
    present = connection_url(name)
    if present is None:
        return f"the connection {name!r} does not exist any more"
    if present != recorded:
        url = url_without_secrets(present)
        return f"kept the connection {name!r}: it leads to another endpoint now, {url}"
    delete_connection(name)
    return f"deleted the connection {name!r}"


def _remove_runs(workdir: Path, confirm: Callable[[str], bool]) -> list[str]:
    """Delete the runs over data of the workdir if the user agrees."""
    runs = runs_of(workdir)
    if not runs:
        return []
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''} over data of {workdir}"
    if not confirm(f"Delete {count} with all answers, from {runs[-1].name} to {runs[0].name}?"):
        fix = f"`phi3 quickstart --remove --yes --workdir {workdir}` deletes them"
        return [f"kept {count}: you did not confirm; {fix}"]
    for run in runs:
        delete_stored_run(run.name)
    return [f"deleted {count}"]


def runs_of(workdir: Path) -> list[StoredRun]:
    """Return the runs whose data file is in a folder, and the runs over their outputs.

    Returns:
        The runs, the newest first.
    """
    folder = workdir.resolve()
    runs = list_stored_runs()
    names = {run.name for run in runs if run.data and folder in run.data.resolve().parents}
    matches = [run for run in runs if run.name in names or run.base in names]
    return sorted(matches, key=lambda run: run.created_on, reverse=True)


def _other_quickstarts(workdir: Path) -> list[str]:
    """Return one line for each other folder beside the workdir that a quickstart made."""
    lines = []
    for folder in sorted(workdir.parent.glob(f"{paths.WORKDIR}*")):
        marker = None if folder == workdir or folder.is_symlink() else read_marker(folder)
        if marker and SUMMARY_FILE in marker.files:
            command = f"phi3 quickstart --remove --workdir {folder}"
            lines.append(
                f"kept {folder}, which belongs to another quickstart; `{command}` removes it"
            )
    return lines


def _service_line() -> list[str]:
    """Return why Prompt flow's service stays, if it is running."""
    try:
        with urllib.request.urlopen(SERVICE_URL, timeout=SERVICE_TIMEOUT_S) as response:
            is_running = "promptflow" in json.load(response)
    except (OSError, ValueError):
        is_running = False
    if not is_running:
        return []
    port = SERVICE_URL.split(":")[2].split("/")[0]
    return [
        f"kept Prompt flow's service on port {port}: `pf` started it, and all your flows share it; "
        "`pf service stop` stops it"
    ]


def _remove_files(workdir: Path) -> list[str]:
    """Remove the files of the quickstart, and the workdir if it is empty then."""
    for folder in (DATA_FOLDER, MODEL_FOLDER, ENDPOINTS_FOLDER, COMPARE_FOLDER):
        remove_own_files(workdir / folder, CACHE_NAMES)
    left = remove_own_files(workdir)
    if not left and not workdir.exists():
        return [f"deleted {workdir}"]
    kept = [f"kept {path}: the quickstart did not write it" for path in left]
    return [f"deleted the files of the quickstart in {workdir}", *kept]


def _shared_model(workdir: Path) -> str | None:
    """Return the name of the base model if the user's cache contains it, or None."""
    try:
        summary = load_json_object(workdir / SUMMARY_FILE)
        base = Path(summary["base"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not base.is_absolute() or not base.is_dir():
        return None
    return next((model.name for model in list_models() if model.folder == base), None)
