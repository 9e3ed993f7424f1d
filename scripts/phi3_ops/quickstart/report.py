"""Print the results of a quickstart, and the commands to go on with."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.table import Table

from .. import paths
from ..data import HELD_OUT, TRAINED, UNKNOWN
from ..endpoint import find_endpoint
from .results import BASE, EXACT_MATCH, TOKEN_F1, TUNED
from .steps import QuickstartJob

METRIC_TITLES = {EXACT_MATCH: "exact match", TOKEN_F1: "token F1"}
KIND_TITLES = {
    TRAINED: "trained phrasings",
    HELD_OUT: "held-out phrasings",
    UNKNOWN: "unknown facts",
}


def print_results(job: QuickstartJob) -> None:
    """Print the scores of both models and the next commands.

    Args:
        job: the quickstart after its last step.
    """
    table = Table(title="Questions answered right", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("questions", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for title in METRIC_TITLES.values():
        for which in ("untrained", "tuned"):
            table.add_column(f"{title}\n{which}", justify="right", no_wrap=True)
    for kind, title in KIND_TITLES.items():
        n = sum(row["kind"] == kind for row in job.questions)
        if n:
            table.add_row(title, str(n), *_score_cells(job, kind))
    job.console.print(table)
    _print_next_steps(job)


def _score_cells(job: QuickstartJob, kind: str) -> Iterator[str]:
    for name in METRIC_TITLES:
        for which in (BASE, TUNED):
            evaluation = job.evaluations.get(which)
            mean = evaluation.scores[name].get(kind) if evaluation else None
            yield f"{mean.mean:.1%}" if mean else "–"


def _print_next_steps(job: QuickstartJob) -> None:
    workdir = job.options.workdir
    chat = _relative(paths.FLOWS) / "chat"
    steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in job.seconds.items())
    lines = [
        ("model", str(job.out / "model")),
        ("summary", str(workdir / "summary.json")),
        ("time", f"{sum(job.seconds.values()):.0f} s ({steps})"),
        *_activation(),
        *_endpoint(job),
        # Prompt flow's trace service would show the answers to other users of this machine.
        ("chat", f"PF_TRACING_SKIP_LOCAL_SETUP=true pf flow test --flow {chat} --interactive"),
        ("browser", "phi3 serve"),
        *_comparison(job),
        ("runs", f"pf run show-details --name {job.evaluations[TUNED].answers_run}"),
        ("remove", f"phi3 quickstart --remove --workdir {workdir}"),
    ]
    for label, text in lines:
        job.console.print(f"  {label:<10}{text}", highlight=False, soft_wrap=True)


def _comparison(job: QuickstartJob) -> list[tuple[str, str]]:
    """Return the command that compares both models; nothing without the untrained model."""
    if BASE not in job.evaluations:
        return []
    runs = " ".join(job.evaluations[which].answers_run for which in (BASE, TUNED))
    return [("compare", f"phi3 compare {runs} --by kind")]


def _activation() -> list[tuple[str, str]]:
    """Return how to put the commands on the path, if they are not: `make quickstart` cannot do it."""
    if shutil.which("phi3"):
        return []
    return [("first", f"source {_relative(Path(sys.prefix))}/bin/activate")]


def _endpoint(job: QuickstartJob) -> list[tuple[str, str]]:
    """Return the address of the endpoint and how to stop it, or how to start it."""
    workdir = job.options.workdir
    running = find_endpoint(workdir, TUNED)
    if running is None:
        return [("endpoint", f"phi3 endpoint --model {job.out / 'model'}")]
    return [
        ("endpoint", f"{running.url} (process {running.pid})"),
        ("stop", f"phi3 endpoint --stop --workdir {workdir}"),
    ]


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
