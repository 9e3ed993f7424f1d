"""The whole path on one machine: data, fine-tuning, endpoint, connection, chat, evaluation."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich import box
from rich.console import Console
from rich.table import Table

from phi3_tools.evaluation import Mean

from . import paths
from .data import HELD_OUT, TRAINED, UNKNOWN, prepare_data
from .endpoint import find_endpoint, start_endpoint, stop_endpoint
from .errors import OpsError
from .files import read_jsonl, write_json
from .pf import (
    DEFAULT_CONNECTION,
    PF_COMMAND,
    delete_connection,
    load_connection,
    probe_endpoint,
    quiet_environment,
    save_connection,
)
from .runs import ask_and_score, mean_by_kind
from .training import DEFAULT_RECIPE, finetune_locally

BASE, TUNED = "base", "tuned"
SHOWN_METRICS = (("exact_match", "exact match"), ("token_f1", "token F1"))
KIND_TITLES = {
    TRAINED: "trained phrasings",
    HELD_OUT: "held-out phrasings",
    UNKNOWN: "unknown facts",
}
DEMO_QUESTION = "Who founded Microsoft?"


@dataclass(frozen=True)
class QuickstartOptions:
    """What the command line says; see `phi3 quickstart --help`."""

    workdir: Path = paths.WORKDIR
    source: Path = paths.SAMPLE_DATA
    seed: int = 1
    recipe: str = DEFAULT_RECIPE
    model: str | None = None
    epochs: float | None = None
    port: int = 0
    replace_connection: bool = False
    keep_endpoint: bool = True


@dataclass
class QuickstartJob:
    """The run so far: where things lie, how long each step took, what was measured."""

    options: QuickstartOptions
    console: Console
    seconds: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, dict[str, int]] = field(default_factory=dict)
    runs: dict[str, list[str]] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, Mean]]] = field(default_factory=dict)
    answer: str = ""

    @property
    def data(self) -> Path:
        return self.options.workdir / "data"

    @property
    def out(self) -> Path:
        return self.options.workdir / "model"

    @property
    def base_model(self) -> Path | None:
        """The model before training, where it lies on this machine."""
        folder = Path(self.options.model) if self.options.model else self.out / "base"
        return folder if (folder / "config.json").is_file() else None

    def connection(self, which: str) -> str:
        return DEFAULT_CONNECTION if which == TUNED else f"{DEFAULT_CONNECTION}-{which}"


def run_quickstart(options: QuickstartOptions, console: Console) -> dict[str, Any]:
    """Do every step, print what came of it, and write `summary.json`.

    Returns:
        The summary.

    Raises:
        OpsError, Phi3Error: a step failed; endpoints that this run started are stopped.
    """
    job = QuickstartJob(options, console)
    if not options.replace_connection:
        _spare_foreign_connection()
    try:
        for number, (name, title, step) in enumerate(STEPS, 1):
            console.print(f"[bold]\\[{number}/{len(STEPS)}] {title}[/bold]")
            with _timed(job, name):
                console.print(f"      {step(job)}", highlight=False, soft_wrap=True)
    except BaseException:
        for which in (BASE, TUNED):
            stop_endpoint(options.workdir, which)
        raise
    if not options.keep_endpoint:
        stop_endpoint(options.workdir, TUNED)
    summary = _summary(job)
    write_json(options.workdir / "summary.json", summary)
    _show(job)
    return summary


def _is_ours(name: str) -> bool:
    """Whether a connection points at this machine, as a quickstart's does."""
    connection = load_connection(name)
    host = urlsplit(dict(connection.configs).get("endpoint", "")).hostname if connection else None
    return host in ("127.0.0.1", "localhost")


def _spare_foreign_connection() -> None:
    name = DEFAULT_CONNECTION
    if load_connection(name) is not None and not _is_ours(name):
        raise OpsError(
            f"the connection {name!r} points at another endpoint, and this would replace it",
            "Give --replace-connection, or another store with PF_HOME_DIRECTORY=DIR.",
        )


@contextmanager
def _timed(job: QuickstartJob, name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    job.seconds[name] = round(time.monotonic() - start, 2)


# -- steps: each says in one line what came of it --------------------------------------------------


def _data(job: QuickstartJob) -> str:
    manifest = prepare_data(job.options.source, job.data, seed=job.options.seed)
    job.rows = read_jsonl(job.data / "questions.jsonl")
    rows = manifest.rows
    rejected = f", {rows.rejected} rejected" if rows.rejected else ""
    return f"{rows.train} rows to train, {rows.test} to test{rejected}, in {job.data}"


def _finetune(job: QuickstartJob) -> str:
    options = job.options
    extra = ["--seed", str(options.seed)]
    extra += ["--model", options.model] if options.model else []
    extra += ["--epochs", str(options.epochs)] if options.epochs else []
    files = (job.data / "train.jsonl", job.data / "test.jsonl")
    metrics = finetune_locally(*files, job.out, recipe=options.recipe, extra=extra)
    return f"loss {metrics.train_loss:.3f} after {metrics.steps} steps, in {job.out}"


def _before(job: QuickstartJob) -> str:
    model = job.base_model
    if model is None:
        return "skipped: the base model does not lie on this machine"
    _serve(job, BASE, model, port=0)
    said = _evaluate(job, BASE)
    stop_endpoint(job.options.workdir, BASE)
    delete_connection(job.connection(BASE))
    return said


def _start(job: QuickstartJob) -> str:
    return _serve(job, TUNED, job.out / "model", port=job.options.port)


def _chat(job: QuickstartJob) -> str:
    job.answer = flow_test(paths.FLOWS / "qa", {"input_data": DEMO_QUESTION})
    return f"“{DEMO_QUESTION}” → “{job.answer}”"


def _after(job: QuickstartJob) -> str:
    return _evaluate(job, TUNED)


STEPS: tuple[tuple[str, str, Callable[[QuickstartJob], str]], ...] = (
    ("data", "Prepare the data", _data),
    ("finetune", "Fine-tune a Phi-3", _finetune),
    ("before", "Evaluate the untrained model", _before),
    ("serve", "Serve the fine-tuned model and connect it", _start),
    ("chat", "Ask it through the flow", _chat),
    ("after", "Evaluate the fine-tuned model", _after),
)


def _serve(job: QuickstartJob, which: str, model: Path, *, port: int) -> str:
    key = secrets.token_urlsafe(32)
    workdir = job.options.workdir
    running = start_endpoint(model, workdir, which, key=key, port=port)
    name, fields = job.connection(which), {"endpoint": running.url}
    reply = probe_endpoint(fields, key)
    state = save_connection(name, fields, key)
    return f"{running.url}, connection {name!r} {state}, {reply.contract} contract"


def _evaluate(job: QuickstartJob, which: str) -> str:
    questions = job.data / "questions.jsonl"
    title = f"quickstart-{which}"
    with job.console.status(f"asking {len(job.rows)} questions"):
        asked, scored = ask_and_score(questions, title=title, connection=job.connection(which))
    job.runs[which] = [asked.name, scored.name]
    job.lines[which] = {"lines": asked.lines, "failed": asked.failed}
    job.scores[which] = {name: mean_by_kind(job.rows, scored, name) for name, _ in SHOWN_METRICS}
    failed = f", {asked.failed} of them failed" if asked.failed else ""
    return f"{asked.lines} questions asked{failed}; runs {asked.name} and {scored.name}"


def flow_test(flow: Path, inputs: dict[str, str]) -> str:
    """A flow's answer under `pf flow test`.

    Raises:
        OpsError: the flow failed.
    """
    command = [*PF_COMMAND, "flow", "test", "--flow", str(flow)]
    command += ["--inputs", *(f"{name}={value}" for name, value in inputs.items())]
    done = subprocess.run(command, env=quiet_environment(), capture_output=True, text=True)
    outputs = re.search(r"^\{$.*", done.stdout, re.MULTILINE | re.DOTALL)  # behind the log's lines
    try:
        return str(json.loads(outputs.group() if outputs else "")["answer"])
    except (ValueError, KeyError) as error:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise OpsError(f"`pf flow test` of {flow.name} failed: {said[-1]}") from error


# -- the end ---------------------------------------------------------------------------------------


def _summary(job: QuickstartJob) -> dict[str, Any]:
    matches = {
        which: {kind: round(mean.mean, 4) for kind, mean in scores["exact_match"].items()}
        for which, scores in job.scores.items()
    }
    return {
        "seed": job.options.seed,
        "seconds": {**job.seconds, "total": round(sum(job.seconds.values()), 2)},
        "exact_match": {"before": matches.get(BASE), "after": matches.get(TUNED)},
        "lines": {"before": job.lines.get(BASE), "after": job.lines.get(TUNED)},
        "runs": job.runs,
        "answer": {"question": DEMO_QUESTION, "text": job.answer},
        "model": str(job.out / "model"),
        "connection": job.connection(TUNED),
    }


def _show(job: QuickstartJob) -> None:
    table = Table(title="Questions answered right", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("questions", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for _, title in SHOWN_METRICS:
        for which in ("untrained", "tuned"):
            table.add_column(f"{title}\n{which}", justify="right", no_wrap=True)
    for kind, title in KIND_TITLES.items():
        n = sum(row["kind"] == kind for row in job.rows)
        if n:
            table.add_row(title, str(n), *_cells(job, kind))
    job.console.print(table)
    _show_next(job)


def _cells(job: QuickstartJob, kind: str) -> Iterator[str]:
    for name, _ in SHOWN_METRICS:
        for which in (BASE, TUNED):
            mean = job.scores.get(which, {}).get(name, {}).get(kind)
            yield f"{mean.mean:.1%}" if mean else "–"


def _show_next(job: QuickstartJob) -> None:
    workdir = job.options.workdir
    chat = _relative(paths.FLOWS) / "chat"
    steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in job.seconds.items())
    lines = [
        ("model", str(job.out / "model")),
        ("summary", str(workdir / "summary.json")),
        ("time", f"{sum(job.seconds.values()):.0f} s ({steps})"),
        *_activation(),
        *_endpoint(job),
        ("chat", f"pf flow test --flow {chat} --interactive"),
        ("browser", "phi3 serve"),
        *_comparison(job),
        ("runs", f"pf run show-details --name {job.runs[TUNED][0]}"),
        ("remove", f"phi3 quickstart --remove --workdir {workdir}"),
    ]
    for label, text in lines:
        job.console.print(f"  {label:<10}{text}", highlight=False, soft_wrap=True)


def _comparison(job: QuickstartJob) -> list[tuple[str, str]]:
    """How to compare the two runs, where the untrained model was asked as well."""
    if BASE not in job.runs:
        return []
    return [("compare", f"phi3 compare {job.runs[BASE][0]} {job.runs[TUNED][0]} --by kind")]


def _activation() -> list[tuple[str, str]]:
    """How to get the commands onto the path, where they are not: `make quickstart` activates nothing."""
    if shutil.which("phi3"):
        return []
    return [("first", f"source {_relative(Path(sys.prefix))}/bin/activate")]


def _endpoint(job: QuickstartJob) -> list[tuple[str, str]]:
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


def remove_quickstart(options: QuickstartOptions) -> list[str]:
    """Undo a quickstart: stop its endpoints, delete its connections and its workdir.

    Returns:
        What was removed, a line each.

    Raises:
        OpsError: the workdir is there but was not made by a quickstart.
    """
    removed = []
    workdir = options.workdir
    if workdir.exists() and not (workdir / "data" / "manifest.json").is_file():
        raise OpsError(f"{workdir} holds no quickstart", "Nothing was removed; check --workdir.")
    for which in (BASE, TUNED):
        if stop_endpoint(workdir, which):
            removed.append(f"stopped the endpoint {which!r}")
    for name in (DEFAULT_CONNECTION, f"{DEFAULT_CONNECTION}-{BASE}"):
        if _is_ours(name) and delete_connection(name):
            removed.append(f"deleted the connection {name!r}")
    if workdir.exists():
        shutil.rmtree(workdir)
        removed.append(f"deleted {workdir}")
    return removed
