"""Run all steps of a quickstart, or remove what a quickstart made."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
from ..models import list_models
from ..pf import connection_url, delete_connection
from ..training import CACHE_NAMES
from .memory import PeakMemory
from .model_choice import choose_model
from .report import print_results
from .results import BASE, PAGE, TUNED, QuickstartSummary
from .steps import DATA_FOLDER, MODEL_FOLDER, QuickstartJob, QuickstartOptions, steps_of

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
    choice = choose_model(options.model, options.recipe, options.questions)
    job = QuickstartJob(options, console, choice)
    _prepare_workdir(job)
    steps = steps_of(job)
    try:
        with PeakMemory() as memory:
            for number, (name, title, step) in enumerate(steps, 1):
                console.print(f"[{number}/{len(steps)}] {title}", style="bold", markup=False)
                with _timed(job, name):
                    console.print(f"      {step(job)}", highlight=False, soft_wrap=True)
        job.peak_memory = memory.peak
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

    The results of an earlier quickstart do not describe the new model. Its summary is deleted, and the
    endpoint of its base model and its page are stopped. The endpoint of its fine-tuned model is replaced
    when the new model is ready.

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
    (workdir / SUMMARY_FILE).unlink(missing_ok=True)
    for name in (PAGE, BASE):
        stop_endpoint(workdir, name)


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
    shared = _shared_model(workdir)
    lines = []
    for running in list(running_endpoints(workdir)):
        if stop_endpoint(workdir, running.name):
            kind = "chat page" if running.name == PAGE else "endpoint"
            lines.append(f"stopped the {kind} {running.name!r}")
    for name, url in marker.connections.items():
        if connection_url(name) == url and delete_connection(name):
            lines.append(f"deleted the connection {name!r}")
    if shared:
        lines.append(
            f"kept the base model {shared}, which other projects can use too; "
            f"`phi3 models --remove {shared}` deletes it"
        )
    for folder in (DATA_FOLDER, MODEL_FOLDER, ENDPOINTS_FOLDER):
        remove_own_files(workdir / folder, CACHE_NAMES)
    left = remove_own_files(workdir)
    if not left and not workdir.exists():
        return [*lines, f"deleted {workdir}"]
    kept = [f"kept {path}: phi3 did not write it" for path in left]
    return [*lines, f"deleted the files of the quickstart in {workdir}", *kept]


def _shared_model(workdir: Path) -> str | None:
    """Return the name of the base model if the user's cache contains it, or None."""
    try:
        summary = json.loads((workdir / SUMMARY_FILE).read_text(encoding="utf-8"))
        base = Path(summary["base"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not base.is_absolute() or not base.is_dir():
        return None
    return next((model.name for model in list_models() if model.folder == base), None)
