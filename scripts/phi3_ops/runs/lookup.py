"""Find a stored run by its name, or the newest run by its display name."""

from __future__ import annotations

from ..errors import OpsError
from ..pf import StoredRun, find_stored_run, list_stored_runs


def find_run(reference: str) -> StoredRun | None:
    """Return the run of that name, else the newest run of that display name, else None.

    The display name is what the user gave as `--name`; the run's name also has the time and a suffix.
    """
    if run := find_stored_run(reference):
        return run
    titled = [run for run in list_stored_runs() if run.title == reference]
    return max(titled, key=lambda run: run.created_on, default=None)


def run_name(reference: str) -> str:
    """Return the name of a run, see `require_run`."""
    return require_run(reference).name


def earlier_run(name: str) -> str | None:
    """Return the name of the newest earlier run of the same flow over the same data, or None."""
    runs = list_stored_runs()
    run = next((run for run in runs if run.name == name), None)
    if run is None or run.flow is None:
        return None
    earlier = [
        other
        for other in runs
        if other.name != name
        and other.created_on <= run.created_on
        and (other.flow, other.data, other.base) == (run.flow, run.data, run.base)
    ]
    return max(earlier, key=lambda other: other.created_on).name if earlier else None


def require_run(reference: str) -> StoredRun:
    """Return the run of that name, or the newest run of that display name.

    Raises:
        OpsError: the run does not exist.
    """
    run = find_run(reference)
    if run is None:
        raise OpsError(f"the run {reference!r} does not exist", "`phi3 runs` lists the runs.")
    return run
