"""The runs of Prompt flow's store, as rows of its database.

Every function takes the database of `open_database("run_info")`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..yaml_files import load_yaml
from .run_types import RUNNING, NewRun, StoredRun
from .store_database import store_folder

APP = "phi3.app"
# Keys of a row's `properties`.
FLOW_PATH, OUTPUT_PATH, BASE_RUN, MAPPING = "flow_path", "output_path", "run", "column_mapping"
RESUMED, VARIANT, SYSTEM_METRICS = "resume_from", "node_variant", "system_metrics"


def find_row(database: sqlite3.Connection, name: str) -> StoredRun | None:
    """Return the run of that name, or None if it does not exist."""
    row = database.execute("SELECT * FROM run_info WHERE name = ?", (name,)).fetchone()
    return None if row is None else _stored_run(row)


def list_rows(database: sqlite3.Connection) -> list[StoredRun]:
    """Return every run that is not archived, the newest first."""
    query = "SELECT * FROM run_info WHERE archived = 0 ORDER BY created_on DESC"
    return [_stored_run(row) for row in database.execute(query)]


def insert_row(database: sqlite3.Connection, new: NewRun, folder: Path) -> None:
    """Add a run that starts now.

    Args:
        database: the database.
        new: the run.
        folder: the folder of the run.

    Raises:
        sqlite3.IntegrityError: a run of that name exists.
    """
    now = datetime.now(timezone.utc).isoformat()
    values = {
        "name": new.name,
        "type": "batch",
        "created_on": now,
        "status": RUNNING,
        "display_name": new.title,
        "properties": json.dumps(run_properties(new, folder)),
        "archived": 0,
        "start_time": now,
        "data": str(new.data.resolve()),
        "run_source": "local",
    }
    columns, marks = ", ".join(values), ", ".join("?" * len(values))
    statement = f"INSERT INTO run_info ({columns}) VALUES ({marks})"  # noqa: S608 - our names
    database.execute(statement, list(values.values()))


def run_properties(new: NewRun, folder: Path) -> dict[str, Any]:
    """Return the properties that Prompt flow stores for a run."""
    properties = {
        FLOW_PATH: None if new.flow is None else new.flow.resolve().as_posix(),
        OUTPUT_PATH: folder.as_posix(),
        BASE_RUN: new.base,
        VARIANT: f"${{{new.variant}}}" if new.variant else None,
        RESUMED: new.resume_from,
        MAPPING: dict(new.column_mapping) or None,
        APP: new.app,
    }
    present = {name: value for name, value in properties.items() if value is not None}
    return {**present, **new.properties}


def update_status(database: sqlite3.Connection, name: str, status: str) -> None:
    """Change the status of a run."""
    database.execute("UPDATE run_info SET status = ? WHERE name = ?", (status, name))


def end_row(
    database: sqlite3.Connection, name: str, status: str, system_metrics: Mapping[str, Any]
) -> None:
    """Note that a run has ended now."""
    query = "SELECT properties FROM run_info WHERE name = ?"
    row = database.execute(query, (name,)).fetchone()
    properties = {**json.loads(row["properties"]), SYSTEM_METRICS: dict(system_metrics)}
    database.execute(
        "UPDATE run_info SET status = ?, end_time = ?, properties = ? WHERE name = ?",
        (status, datetime.now(timezone.utc).isoformat(), json.dumps(properties), name),
    )


def runs_folder(flow: Path) -> Path:
    """Return the folder for the runs of a flow: `run.output_path` of pf.yaml, or `.runs` in the store."""
    default = store_folder() / ".runs"
    try:
        configured = load_yaml(store_folder() / "pf.yaml")["run"]["output_path"]
    except (OSError, ValueError, LookupError, TypeError):
        return default
    path = Path(str(configured).replace("${flow_directory}", flow.resolve().as_posix())).resolve()
    return default if path == flow.resolve() else path


def _stored_run(row: sqlite3.Row) -> StoredRun:
    properties = json.loads(row["properties"] or "{}")
    flow = properties.get(FLOW_PATH)
    return StoredRun(
        name=row["name"],
        title=row["display_name"] or row["name"],
        status=row["status"],
        folder=Path(properties.get(OUTPUT_PATH, "")),  # runs of a remote flow have none
        flow=Path(flow) if flow else None,
        data=Path(row["data"]).resolve() if row["data"] else None,
        base=properties.get(BASE_RUN) or None,
        column_mapping=properties.get(MAPPING) or {},
        properties=properties,
        created_on=datetime.fromisoformat(row["created_on"]),
    )
