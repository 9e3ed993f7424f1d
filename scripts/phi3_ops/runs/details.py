"""List, describe and delete stored runs, for `phi3 runs`."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OpsError
from ..pf import RUNNING, StoredRun, delete_stored_run, list_stored_runs
from .lookup import require_run
from .process import process_is_running
from .properties import RunProperties
from .store import RunOutputs, read_run_folder


@dataclass(frozen=True)
class RunDetails:
    """A stored run and its results.

    Attributes:
        run: the run.
        outputs: its results.
    """

    run: StoredRun
    outputs: RunOutputs

    @property
    def lines(self) -> list[int]:
        """The numbers of the lines that have run."""
        return sorted({*self.outputs.inputs, *self.outputs.rows, *self.outputs.errors})

    @property
    def counts(self) -> str:
        """The numbers of answered and failed lines in words."""
        return f"{len(self.outputs.rows)} answered, {len(self.outputs.errors)} failed"


def list_runs() -> list[StoredRun]:
    """Return the stored runs, the newest first."""
    return sorted(list_stored_runs(), key=lambda run: run.created_on, reverse=True)


def run_details(reference: str) -> RunDetails:
    """Return a run and its results.

    Args:
        reference: name of the run, or its display name, which stands for the newest run.

    Raises:
        OpsError: the run does not exist, or its folder cannot be read.
    """
    run = require_run(reference)
    return RunDetails(run, read_run_folder(run.folder))


def delete_run(name: str) -> None:
    """Delete a run with its folder.

    Raises:
        OpsError: the run does not exist, is still running, or cannot be deleted.
    """
    run = require_run(name)
    process = RunProperties.from_properties(run.properties).process
    if run.status == RUNNING and process_is_running(process or ""):
        raise OpsError(f"{run.name} is still running", "Wait for it, or stop it with Ctrl-C.")
    delete_stored_run(run.name)
