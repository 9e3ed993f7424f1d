"""Print the results of a quickstart, and the commands to go on with."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.table import Table

from .. import paths
from ..data import BY_PROMPT, HELD_OUT, TRAINED, UNKNOWN
from ..endpoint import find_endpoint
from ..pf import is_installed
from .results import BASE, EXACT_MATCH, TOKEN_F1, TUNED
from .steps import QuickstartJob

METRIC_TITLES = {EXACT_MATCH: "exact match", TOKEN_F1: "token F1"}
KINDS = (TRAINED, HELD_OUT, UNKNOWN)


def print_results(job: QuickstartJob) -> None:
    """Print the scores of both models, the next commands, and last the address of the chat page.

    Args:
        job: the quickstart after its last step.
    """
    table = Table(title="Questions answered right", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("questions", no_wrap=True)
    table.add_column("asked", justify="right", no_wrap=True)
    for title in METRIC_TITLES.values():
        for which in ("base", "fine-tuned"):
            table.add_column(f"{title}\n{which}", justify="right", no_wrap=True)
    for kind in KINDS:
        if job.asked(kind):
            asked = f"{job.asked(kind)} of {job.rows[kind]}"
            table.add_row(_kind_title(kind, job.groups), asked, *_score_cells(job, kind))
    job.console.print(table)
    for note in job.notes:
        job.console.print(f"  {'note':<10}{note}", highlight=False, soft_wrap=True)
    for lines in (_results(job), _commands(job), [_page(job)]):
        for label, text in lines:
            job.console.print(f"  {label:<10}{text}", highlight=False, soft_wrap=True)
        job.console.print()


def _kind_title(kind: str, groups: str) -> str:
    """Return the title of the questions of a kind.

    Args:
        kind: one of `KINDS`.
        groups: what rows of the data have in common that belong together.
    """
    if kind == UNKNOWN:
        return "unknown facts"
    noun = "rows" if groups == BY_PROMPT else "phrasings"
    return f"{'trained' if kind == TRAINED else 'held-out'} {noun}"


def _score_cells(job: QuickstartJob, kind: str) -> Iterator[str]:
    for name in METRIC_TITLES:
        for which in (BASE, TUNED):
            evaluation = job.evaluations.get(which)
            mean = evaluation.scores[name].get(kind) if evaluation else None
            yield f"{mean.mean:.1%}" if mean else "–"


def _results(job: QuickstartJob) -> Iterator[tuple[str, str]]:
    """Yield what the quickstart measured and where its results are."""
    yield "answers", f"greedy, at most {job.answer_tokens} tokens from either model"
    if loss := job.general_loss:
        chats = f"{loss.rows} chats that no training row resembles"
        change = f"{loss.before:.2f} before the training, {loss.after:.2f} after it"
        yield "general", f"loss on {chats}: {change}"
    steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in job.seconds.items())
    yield "time", f"{sum(job.seconds.values()):.0f} s ({steps})"
    if job.peak_memory:
        yield "memory", f"{job.peak_memory / 10**9:.1f} GB at most"
    yield "model", str(job.out / "model")
    yield "summary", str(job.options.workdir / "summary.json")


def _commands(job: QuickstartJob) -> list[tuple[str, str]]:
    """Return the commands to go on with."""
    workdir = job.options.workdir
    return [
        *_activation(),
        *_endpoint(job),
        *_terminal(),
        *_comparison(job),
        ("runs", f"phi3 runs --show {job.evaluations[TUNED].answers_run}"),
        ("remove", f"phi3 quickstart --remove --workdir {workdir}"),
    ]


def _terminal() -> list[tuple[str, str]]:
    """Return the command for a chat in the terminal; nothing without Prompt flow."""
    if not is_installed():
        return []
    chat = _relative(paths.FLOWS) / "chat"
    # Prompt flow's trace service would show the answers to other users of this machine.
    command = f"PF_TRACING_SKIP_LOCAL_SETUP=true pf flow test --flow {chat} --interactive"
    return [("terminal", command)]


def _comparison(job: QuickstartJob) -> list[tuple[str, str]]:
    """Return the command that compares both models; nothing without the base model."""
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


def _page(job: QuickstartJob) -> tuple[str, str]:
    """Return the address of the chat page, or the command that serves it."""
    if job.page is None:
        endpoint = f"phi3 endpoint --model {job.out / 'model'}"
        return "next", f"{endpoint}, and in another terminal phi3 serve, to chat with the model"
    beside = ", beside the base model" if BASE in job.evaluations else ""
    return "open", f"{job.page} to chat with the fine-tuned model{beside}"


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
