"""The runs of the package's own store, which is used where Prompt flow is not installed.

A run has a folder in `runs` in the user's folder, with the files that Prompt flow would write and with
`run.json`, its record.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from phi3_tools.connections import user_folder

from ..errors import OpsError
from ..files import load_json_object, private_folder, write_json
from ..names import is_name
from .run_rows import BASE_RUN, FLOW_PATH, MAPPING, OUTPUT_PATH, SYSTEM_METRICS, run_properties
from .run_types import RUNNING, NewRun, StoredRun

RECORD = "run.json"
_FIX = "Set PHI3_HOME to a folder that only you can open."


def own_runs_folder() -> Path:
    """Return the folder of the runs, which need not exist."""
    return user_folder() / "runs"


def find_own_run(name: str) -> StoredRun | None:
    """Return the run of that name, or None if it does not exist.

    Raises:
        OpsError: its record is damaged.
    """
    record = _read_record(name)
    return None if record is None else _stored_run(record)


def list_own_runs() -> list[StoredRun]:
    """Return every run, the newest first. Damaged records are left out."""
    runs = []
    for file in own_runs_folder().glob(f"*/{RECORD}"):
        try:
            if run := find_own_run(file.parent.name):
                runs.append(run)
        except OpsError:
            continue
    return sorted(runs, key=lambda run: run.created_on, reverse=True)


def begin_own_run(new: NewRun, folder: Path | None = None) -> Path:
    """Add a run that starts now, and return its folder.

    Args:
        new: the run.
        folder: its folder; None creates one in the store.

    Raises:
        OpsError: a run of that name exists, or the store cannot be written.
    """
    private_folder(user_folder(), _FIX)
    record_folder = own_runs_folder() / new.name
    if (record_folder / RECORD).exists():
        raise OpsError(f"the run {new.name} exists already", "Choose another name.")
    try:
        record_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OpsError(f"cannot create {record_folder}: {error.strerror}", _FIX) from error
    now = datetime.now(timezone.utc).isoformat()
    record = {
        "name": new.name,
        "display_name": new.title,
        "status": RUNNING,
        "created_on": now,
        "start_time": now,
        "data": str(new.data.resolve()),
        "properties": run_properties(new, folder or record_folder),
    }
    write_json(record_folder / RECORD, record)
    return folder or record_folder


def update_own_run(name: str, status: str, system_metrics: Mapping[str, Any] | None = None) -> None:
    """Change the status of a run, and add its system metrics when it has ended."""
    record = _read_record(name)
    if record is None:
        return
    record["status"] = status
    if system_metrics is not None:
        record["end_time"] = datetime.now(timezone.utc).isoformat()
        record["properties"][SYSTEM_METRICS] = dict(system_metrics)
    write_json(own_runs_folder() / name / RECORD, record)


def forget_own_run(name: str) -> None:
    """Delete the record of a run; its folder stays."""
    (own_runs_folder() / name / RECORD).unlink(missing_ok=True)


def delete_own_run(name: str) -> bool:
    """Delete a run with its folder in the store, and return whether it existed."""
    folder = own_runs_folder() / name
    if not is_name(name) or not (folder / RECORD).is_file():
        return False
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise OpsError(f"cannot delete {folder}: {error.strerror}") from error
    return True


def _read_record(name: str) -> dict[str, Any] | None:
    if not is_name(name):
        return None
    file = own_runs_folder() / name / RECORD
    try:
        record = load_json_object(file)
        record["properties"] = dict(record["properties"])
        _stored_run(record)  # raises if a field is missing or of another type
        return record
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OpsError(f"{file} is damaged", "Delete the folder of the run.") from error


def _stored_run(record: Mapping[str, Any]) -> StoredRun:
    properties = record["properties"]
    for name in ("name", "display_name", "status"):
        if not isinstance(record[name], str):
            raise TypeError(f"{name} is not a text")
    flow = properties.get(FLOW_PATH)
    return StoredRun(
        name=record["name"],
        title=record["display_name"],
        status=record["status"],
        folder=Path(properties[OUTPUT_PATH]),
        flow=Path(flow) if flow else None,
        data=Path(record["data"]),
        base=properties.get(BASE_RUN),
        column_mapping=dict(properties.get(MAPPING) or {}),
        properties=properties,
        created_on=datetime.fromisoformat(record["created_on"]).astimezone(timezone.utc),
    )
