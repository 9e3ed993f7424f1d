"""Run all steps of a quickstart, or remove what a quickstart made."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from ..endpoint import ENDPOINTS_FOLDER, running_endpoints, stop_endpoint
from ..errors import OpsError
from ..files import (
    read_marker,
    record_files,
    refuse_foreign_files,
    remove_own_files,
    require_own_folder,
    write_json,
)
from ..pf import connection_url, delete_connection
from ..training import CACHE_NAMES
from .report import print_results
from .results import BASE, TUNED, QuickstartSummary
from .steps import DATA_FOLDER, MODEL_FOLDER, STEPS, QuickstartJob, QuickstartOptions

SUMMARY_FILE = "summary.json"


def run_quickstart(options: QuickstartOptions, console: Console) -> QuickstartSummary:
    """Run all steps, print their results, and write `summary.json`.

    Args:
        options: the options of the command.
        console: console to print to.

    Raises:
        OpsError: the workdir or a connection belongs to something else; nothing was changed.
        OpsError, Phi3Error: a step failed; the endpoints that this function started are stopped.
    """
    job = QuickstartJob(options, console)
    _prepare_workdir(job)
    try:
        for number, (name, title, step) in enumerate(STEPS, 1):
            console.print(f"[{number}/{len(STEPS)}] {title}", style="bold", markup=False)
            with _timed(job, name):
                console.print(f"      {step(job)}", highlight=False, soft_wrap=True)
    except BaseException:
        for which in job.started:
            stop_endpoint(options.workdir, which)
        raise
    if not options.keep_endpoint:
        stop_endpoint(options.workdir, TUNED)
    summary = job.summary()
    write_json(options.workdir / SUMMARY_FILE, summary.to_json())
    print_results(job)
    return summary


def _prepare_workdir(job: QuickstartJob) -> None:
    """Create the workdir with its marker, if nothing of others would be replaced.

    Raises:
        OpsError: the workdir may not be used, contains a summary of others, or a connection points to
            another machine.
    """
    workdir = job.options.workdir
    require_own_folder(workdir)
    refuse_foreign_files(workdir, [SUMMARY_FILE])
    for which in (TUNED, BASE):
        job.require_replaceable(which)
    record_files(workdir, [SUMMARY_FILE])


@contextmanager
def _timed(job: QuickstartJob, name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    job.seconds[name] = round(time.monotonic() - start, 2)


def remove_quickstart(options: QuickstartOptions) -> list[str]:
    """Undo a quickstart: stop its endpoints, delete its connections and its files.

    A connection is deleted only if it still points to an endpoint of the workdir.

    Args:
        options: the options of the command; only `workdir` is used.

    Returns:
        One line for each thing that was removed, and for each file that stays.

    Raises:
        OpsError: the workdir exists, but it is not the workdir of a quickstart, or it may not be removed.
    """
    workdir = options.workdir
    if not os.path.lexists(workdir):
        return []
    require_own_folder(workdir)
    marker = read_marker(workdir)
    if marker is None or SUMMARY_FILE not in marker.files:
        what = f"{workdir} is not the folder of a quickstart"
        raise OpsError(what, "Nothing was removed; check --workdir.")
    lines = []
    for running in list(running_endpoints(workdir)):
        if stop_endpoint(workdir, running.name):
            lines.append(f"stopped the endpoint {running.name!r}")
    for name, url in marker.connections.items():
        if connection_url(name) == url and delete_connection(name):
            lines.append(f"deleted the connection {name!r}")
    for folder in (DATA_FOLDER, MODEL_FOLDER, ENDPOINTS_FOLDER):
        remove_own_files(workdir / folder, CACHE_NAMES)
    left = remove_own_files(workdir)
    if not left and not workdir.exists():
        return [*lines, f"deleted {workdir}"]
    kept = [f"kept {path}: phi3 did not write it" for path in left]
    return [*lines, f"deleted the files of the quickstart in {workdir}", *kept]
