"""Run all steps of a quickstart, or remove what a quickstart made."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from rich.console import Console

from ..endpoint import stop_endpoint
from ..errors import OpsError
from ..files import write_json
from ..pf import DEFAULT_CONNECTION, delete_connection, load_connection
from .report import print_results
from .results import BASE, TUNED, QuickstartSummary
from .steps import STEPS, QuickstartJob, QuickstartOptions


def run_quickstart(options: QuickstartOptions, console: Console) -> QuickstartSummary:
    """Run all steps, print their results, and write `summary.json`.

    Args:
        options: the options of the command.
        console: console to print to.

    Raises:
        OpsError, Phi3Error: a step failed; the endpoints that this function started are stopped.
    """
    job = QuickstartJob(options, console)
    if not options.replace_connection:
        _refuse_replacing_connection()
    try:
        for number, (name, title, step) in enumerate(STEPS, 1):
            console.print(f"[{number}/{len(STEPS)}] {title}", style="bold", markup=False)
            with _timed(job, name):
                console.print(f"      {step(job)}", highlight=False, soft_wrap=True)
    except BaseException:
        for which in (BASE, TUNED):
            stop_endpoint(options.workdir, which)
        raise
    if not options.keep_endpoint:
        stop_endpoint(options.workdir, TUNED)
    summary = job.summary()
    write_json(options.workdir / "summary.json", summary.to_json())
    print_results(job)
    return summary


def _is_local(name: str) -> bool:
    """Return whether a connection points to this machine, like the connections of a quickstart."""
    connection = load_connection(name)
    host = urlsplit(dict(connection.configs).get("endpoint", "")).hostname if connection else None
    return host in ("127.0.0.1", "localhost")


def _refuse_replacing_connection() -> None:
    """Raise OpsError if the connection points to another machine."""
    name = DEFAULT_CONNECTION
    if load_connection(name) is not None and not _is_local(name):
        raise OpsError(
            f"the connection {name!r} points to another endpoint, and the quickstart would replace it",
            "Give --replace-connection, or use another store with PF_HOME_DIRECTORY=DIR.",
        )


@contextmanager
def _timed(job: QuickstartJob, name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    job.seconds[name] = round(time.monotonic() - start, 2)


def remove_quickstart(options: QuickstartOptions) -> list[str]:
    """Undo a quickstart: stop its endpoints, delete its connections and its workdir.

    Args:
        options: the options of the command; only `workdir` is used.

    Returns:
        One line for each thing that was removed.

    Raises:
        OpsError: the workdir exists, but it is not the workdir of a quickstart.
    """
    removed = []
    workdir = options.workdir
    if workdir.exists() and not (workdir / "data" / "manifest.json").is_file():
        what = f"{workdir} is not the folder of a quickstart"
        raise OpsError(what, "Nothing was removed; check --workdir.")
    for which in (BASE, TUNED):
        if stop_endpoint(workdir, which):
            removed.append(f"stopped the endpoint {which!r}")
    for name in (DEFAULT_CONNECTION, f"{DEFAULT_CONNECTION}-{BASE}"):
        if _is_local(name) and delete_connection(name):
            removed.append(f"deleted the connection {name!r}")
    if workdir.exists():
        shutil.rmtree(workdir)
        removed.append(f"deleted {workdir}")
    return removed
