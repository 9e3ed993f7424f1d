"""The steps of a quickstart. Each step returns its result in one line."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import paths
from ..data import prepare_data
from ..endpoint import find_endpoint, start_endpoint, stop_endpoint
from ..errors import OpsError
from ..files import read_jsonl, record_connection
from ..pf import (
    DEFAULT_CONNECTION,
    PF_COMMAND,
    connection_url,
    delete_connection,
    probe_endpoint,
    quiet_environment,
    refuse_replacing_connection,
    save_connection,
)
from ..runs import ask_and_score, mean_by_kind
from ..training import DEFAULT_RECIPE, finetune_locally
from .results import (
    BASE,
    DEMO_QUESTION,
    METRICS,
    TUNED,
    ModelEvaluation,
    QuickstartSummary,
)

if TYPE_CHECKING:
    from rich.console import Console


DATA_FOLDER, MODEL_FOLDER = "data", "model"  # in the workdir


@dataclass(frozen=True)
class QuickstartOptions:
    """The options of `phi3 quickstart`.

    Attributes:
        workdir: folder for all files.
        source: chats to train and test with.
        seed: seed of the data split and of the training.
        recipe: recipe of the training.
        model: folder or id of the model to fine-tune; None makes a tiny model from scratch.
        epochs: number of epochs; None means the number of the recipe.
        port: port of the endpoint; 0 means a free one.
        replace_connection: whether a connection to another endpoint may be replaced.
        keep_endpoint: whether the endpoint stays running at the end.
    """

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
    """The state of a quickstart: its folders, and the results of the steps so far.

    Attributes:
        options: the options of the command.
        console: console to print to.
        started: `BASE` or `TUNED`, if an endpoint of this quickstart was started.
        seconds: step -> duration in seconds.
        questions: rows of the questions file.
        evaluations: `BASE` or `TUNED` -> evaluation of that model.
        answer: answer to DEMO_QUESTION.
    """

    options: QuickstartOptions
    console: Console
    started: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    questions: list[dict[str, Any]] = field(default_factory=list)
    evaluations: dict[str, ModelEvaluation] = field(default_factory=dict)
    answer: str = ""

    @property
    def data(self) -> Path:
        """Folder of the prepared data."""
        return self.options.workdir / DATA_FOLDER

    @property
    def out(self) -> Path:
        """Output folder of the training."""
        return self.options.workdir / MODEL_FOLDER

    @property
    def base_model(self) -> Path | None:
        """Folder of the untrained model; None if the model is not on this machine."""
        folder = Path(self.options.model) if self.options.model else self.out / "base"
        return folder if (folder / "config.json").is_file() else None

    def connection(self, which: str) -> str:
        """Return the name of the connection to the base or the tuned model."""
        return DEFAULT_CONNECTION if which == TUNED else f"{DEFAULT_CONNECTION}-{which}"

    def require_replaceable(self, which: str) -> None:
        """Raise OpsError if the connection to a model points to another machine, and has to stay."""
        if not self.options.replace_connection:
            fix = "Give --replace-connection, or use another store with PF_HOME_DIRECTORY=DIR."
            refuse_replacing_connection(self.connection(which), "", fix)

    def summary(self) -> QuickstartSummary:
        """Return the results after the last step."""
        return QuickstartSummary(
            seed=self.options.seed,
            seconds=self.seconds,
            before=self.evaluations.get(BASE),
            after=self.evaluations[TUNED],
            answer=self.answer,
            model=self.out / "model",
            connection=self.connection(TUNED),
        )


def _data(job: QuickstartJob) -> str:
    manifest = prepare_data(job.options.source, job.data, seed=job.options.seed)
    job.questions = read_jsonl(job.data / "questions.jsonl")
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
        return "skipped: the base model is not on this machine"
    _serve(job, BASE, model, port=0)
    result = _evaluate(job, BASE)
    running = find_endpoint(job.options.workdir, BASE)
    stop_endpoint(job.options.workdir, BASE)
    if running and connection_url(job.connection(BASE)) == running.url:
        delete_connection(job.connection(BASE))
    return result


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
    job.require_replaceable(which)
    job.started.add(which)
    running = start_endpoint(model, workdir, which, key=key, port=port)
    name, fields = job.connection(which), {"endpoint": running.url}
    reply = probe_endpoint(fields, key)
    record_connection(workdir, name, running.url)
    state = save_connection(name, fields, key)
    return f"{running.url}, connection {name!r} {state}, {reply.contract} contract"


def _evaluate(job: QuickstartJob, which: str) -> str:
    questions = job.data / "questions.jsonl"
    title = f"quickstart-{which}"
    with job.console.status(f"asking {len(job.questions)} questions"):
        answers, scores = ask_and_score(questions, title=title, connection=job.connection(which))
    job.evaluations[which] = ModelEvaluation(
        answers_run=answers.name,
        scores_run=scores.name,
        lines=answers.lines,
        failed=answers.failed,
        scores={name: mean_by_kind(job.questions, scores, name) for name in METRICS},
    )
    failed = f", {answers.failed} of them failed" if answers.failed else ""
    return f"{answers.lines} questions asked{failed}; runs {answers.name} and {scores.name}"


def flow_test(flow: Path, inputs: dict[str, str]) -> str:
    """Run `pf flow test` and return the output `answer` of the flow.

    Args:
        flow: folder of the flow.
        inputs: values of the flow's inputs.

    Raises:
        OpsError: the flow failed.
    """
    command = [*PF_COMMAND, "flow", "test", "--flow", str(flow)]
    command += ["--inputs", *(f"{name}={value}" for name, value in inputs.items())]
    done = subprocess.run(command, env=quiet_environment(), capture_output=True, text=True)
    outputs = re.search(r"^\{$.*", done.stdout, re.MULTILINE | re.DOTALL)  # after the log
    try:
        return str(json.loads(outputs.group() if outputs else "")["answer"])
    except (ValueError, KeyError) as error:
        output = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise OpsError(f"`pf flow test` of {flow.name} failed: {output[-1]}") from error
