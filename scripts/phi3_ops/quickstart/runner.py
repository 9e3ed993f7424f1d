"""Run all steps of a quickstart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from ..data import check_source
from ..endpoint import find_endpoint, stop_endpoint
from ..files import record_files, refuse_foreign_files, require_own_folder, write_json
from ..runs import BatchInterrupted
from ..terminal import print_text
from .connections import restore_connection
from .lock import only_quickstart
from .memory import PeakMemory
from .model_choice import choose_model
from .report import print_results
from .results import BASE, PAGE, SUMMARY_FILE, TUNED, QuickstartSummary
from .steps import QuickstartJob, QuickstartOptions, steps_of
from .workdir import ignore_in_git


def run_quickstart(options: QuickstartOptions, console: Console) -> QuickstartSummary:
    """Run all steps, print their results, and write `summary.json`.

    Args:
        options: the options of the command.
        console: console to print to.

    Raises:
        OpsError: the data cannot be read, or the workdir or a connection belongs to something else;
            nothing was changed. Or another quickstart is running in the workdir.
        OpsError, Phi3Error: a step failed; the endpoints that this function started are stopped, and the
            connections to them are deleted, or restored if they led elsewhere before.
    """
    check_source(options.source, options.columns)
    choice = choose_model(options.model, options.recipe, options.questions)
    job = QuickstartJob(options, console, choice)
    _check_workdir(job)
    with only_quickstart(options.workdir):
        _prepare_workdir(job)
        return _run_steps(job)


def _run_steps(job: QuickstartJob) -> QuickstartSummary:
    options, console, steps = job.options, job.console, steps_of(job)
    try:
        with PeakMemory() as memory:
            for number, (name, title, step) in enumerate(steps, 1):
                console.print(f"[{number}/{len(steps)}] {title}", style="bold", markup=False)
                with _timed(job, name):
                    console.print(f"      {step(job)}", highlight=False, soft_wrap=True)
        job.peak_memory = memory.peak
    except BaseException as error:
        _undo(job)
        if isinstance(error, BatchInterrupted):  # its endpoint has just been stopped
            counts = f"interrupted in step {number}: {error.batch.counts}"
            raise KeyboardInterrupt(f"{counts}; the same command starts again") from None
        raise
    if not options.keep_endpoint:
        stop_endpoint(options.workdir, TUNED)
    summary = job.summary()
    write_json(options.workdir / SUMMARY_FILE, summary.to_json())
    print_results(job)
    return summary


def _undo(job: QuickstartJob) -> None:
    """Stop the endpoints that were started, and restore the connections to endpoints that are stopped."""
    workdir = job.options.workdir
    for which in job.started:
        stop_endpoint(workdir, which)
    for which in (TUNED, BASE):
        if find_endpoint(workdir, which) is None:
            line = restore_connection(workdir, job.connection(which), job.earlier.get(which))
            if line:
                print_text(line, to_stderr=True)


def _check_workdir(job: QuickstartJob) -> None:
    """Check that the quickstart would not replace anything of others.

    Raises:
        OpsError: the workdir may not be used, contains a summary of others, or a connection points to
            another machine.
    """
    workdir = job.options.workdir
    require_own_folder(workdir)
    refuse_foreign_files(workdir, [SUMMARY_FILE])
    for which in (TUNED, BASE):
        job.require_replaceable(which)


def _prepare_workdir(job: QuickstartJob) -> None:
    """Create the workdir with its marker.

    The results of an earlier quickstart do not describe the new model. Its summary is deleted, and the
    endpoint of its base model and its page are stopped. The endpoint of its fine-tuned model is replaced
    when the new model is ready.
    """
    workdir = job.options.workdir
    record_files(workdir, [SUMMARY_FILE])
    ignore_in_git(workdir)
    (workdir / SUMMARY_FILE).unlink(missing_ok=True)
    for name in (PAGE, BASE):
        stop_endpoint(workdir, name)


@contextmanager
def _timed(job: QuickstartJob, name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    job.seconds[name] = round(time.monotonic() - start, 2)
