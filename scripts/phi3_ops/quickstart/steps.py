"""The steps of a quickstart. Each step returns its result in one line."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import paths
from ..chat import start_page
from ..data import BY_PROMPT, TRAINED, DataOptions, TextColumns, prepare_data
from ..endpoint import start_endpoint, stop_endpoint
from ..files import read_jsonl, record_connection
from ..pf import (
    DEFAULT_CONNECTION,
    PHI3,
    probe_endpoint,
    refuse_replacing_connection,
    save_connection,
)
from ..progress import TimeLeft
from ..runs import answer_tokens, ask_and_score, mean_by_kind
from ..terminal import counted
from ..training import DEFAULT_RECIPE, TrainingMetrics, finetune_locally
from .activity import activity
from .ask import ask_flow
from .connections import earlier_connection, restore_connection
from .model_choice import ModelChoice, recipe_by_size
from .results import (
    BASE,
    EXACT_MATCH,
    METRICS,
    PAGE,
    TOKEN_F1,
    TUNED,
    FirstQuestion,
    LossChange,
    ModelEvaluation,
    QuickstartSummary,
)

if TYPE_CHECKING:
    from rich.console import Console


DATA_FOLDER, MODEL_FOLDER = "data", "model"  # in the workdir
PROGRESS_S = 10  # between two lines in a log
FEW_ROWS = 20  # rows for training, with which an accuracy says little
# Scores of trained questions below which the training was too short.
POOR_EXACT_MATCH, POOR_F1 = 0.5, 0.8


@dataclass(frozen=True)
class QuickstartOptions:
    """The options of `phi3 quickstart`.

    Attributes:
        workdir: folder for all files.
        source: questions and answers, or chats, to train and test with.
        columns: columns of the questions and the answers; None finds them by their usual names.
        seed: seed of the data split and of the training.
        model: short name, GGUF file, folder or hub id of the model to fine-tune; None takes the
            recipe's, or smollm2.
        recipe: recipe of the training; None takes the one that suits the model.
        questions: maximum number of questions of each kind; None takes the number that suits the model.
        epochs: number of epochs; None means the number of the recipe.
        port: port of the endpoint; 0 means a free one.
        replace_connection: whether a connection to another endpoint may be replaced.
        keep_endpoint: whether the endpoints and the chat page stay running at the end.
        engine: engine that runs the flows, `PHI3` or `PROMPTFLOW`.
    """

    workdir: Path = paths.WORKDIR
    source: Path = paths.SAMPLE_DATA
    columns: TextColumns | None = None
    seed: int = 1
    model: str | None = None
    recipe: str | None = None
    questions: int | None = None
    epochs: float | None = None
    port: int = 0
    replace_connection: bool = False
    keep_endpoint: bool = True
    engine: str = PHI3


@dataclass
class QuickstartJob:
    """The state of a quickstart: its folders, and the results of the steps so far.

    Attributes:
        options: the options of the command.
        console: console to print to.
        choice: the model to fine-tune, and what suits it.
        started: names of the endpoints that this quickstart started, and `PAGE`.
        earlier: `BASE` or `TUNED` -> connection of others that this quickstart replaced, or None.
        seconds: step -> duration in seconds.
        peak_memory: peak memory of all processes, in bytes; 0 if it is unknown.
        base: folder of the base model if it exists before the training.
        rows: number of rows of each kind in the data.
        groups: what rows of the data have in common that belong together, see `DataManifest`.
        question: the first question of the data.
        questions: rows of the questions file.
        training: metrics of the training.
        evaluations: `BASE` or `TUNED` -> evaluation of that model.
        answer: answer to that question.
        page: address of the chat page, or None if it is not running.
        notes: what limits the results, and what to do about it.
    """

    options: QuickstartOptions
    console: Console
    choice: ModelChoice
    started: set[str] = field(default_factory=set)
    earlier: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0
    base: Path | None = None
    rows: dict[str, int] = field(default_factory=dict)
    groups: str = BY_PROMPT
    question: FirstQuestion = FirstQuestion("", "")
    questions: list[dict[str, Any]] = field(default_factory=list)
    training: TrainingMetrics | None = None
    evaluations: dict[str, ModelEvaluation] = field(default_factory=dict)
    answer: str = ""
    page: str | None = None
    notes: list[str] = field(default_factory=list)

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
        """Folder of the base model; None if the model is not on this machine."""
        folder = self.base or self.out / "base"
        return folder if (folder / "config.json").is_file() else None

    @property
    def answer_tokens(self) -> int:
        """Maximum number of tokens of an answer: enough for the longest reference, for both models."""
        return answer_tokens(self.questions)

    @property
    def recipe(self) -> str:
        """Recipe of the training. Raises OpsError if the model is too large for a CPU."""
        if self.choice.recipe or self.base is None:
            return self.choice.recipe or DEFAULT_RECIPE
        return recipe_by_size(self.base)

    @property
    def general_loss(self) -> LossChange | None:
        """Loss on the general chats before and after the training; None if it was not measured."""
        training = self.training
        if training is None or training.general_loss is None or training.base_general_loss is None:
            return None
        return LossChange(training.general_rows, training.base_general_loss, training.general_loss)

    def asked(self, kind: str) -> int:
        """Return the number of questions of a kind."""
        return sum(row["kind"] == kind for row in self.questions)

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
            base=str(self.base or self.choice.model),
            recipe=self.recipe,
            seconds=self.seconds,
            peak_memory=self.peak_memory,
            asked={kind: self.asked(kind) for kind in self.rows},
            rows=self.rows,
            answer_tokens=self.answer_tokens,
            before=self.evaluations.get(BASE),
            after=self.evaluations[TUNED],
            general_loss=self.general_loss,
            question=self.question,
            answer=self.answer,
            model=self.out / "model",
            connection=self.connection(TUNED),
            page=self.page,
        )


def _data(job: QuickstartJob) -> str:
    options = DataOptions(
        columns=job.options.columns,
        max_questions=job.choice.questions or DataOptions.max_questions,
    )
    manifest = prepare_data(job.options.source, job.data, seed=job.options.seed, options=options)
    job.questions = read_jsonl(job.data / "questions.jsonl")
    job.rows, job.groups = manifest.kinds, manifest.groups
    job.question = _first_question(job.data / "train.jsonl")
    rows, columns = manifest.rows, manifest.columns
    rejected = f", {rows.rejected} rejected, see rejects.jsonl" if rows.rejected else ""
    from_columns = f"; columns {columns.prompt} → {columns.answer}" if columns else ""
    if rows.train < FEW_ROWS:
        job.notes.append(
            f"{counted(rows.train, 'row')} to train and {rows.test} to test say little: give at least "
            f"{2 * FEW_ROWS} rows, or several phrasings of each question"
        )
    train = counted(rows.train, "row")
    return f"{train} to train, {rows.test} to test{rejected}, in {job.data}{from_columns}"


def _first_question(train_file: Path) -> FirstQuestion:
    with train_file.open(encoding="utf-8") as file:
        messages = json.loads(file.readline())["messages"]
    turns = [message["content"] for message in messages if message["role"] != "system"]
    return FirstQuestion(turns[0], turns[1])


def _get_model(job: QuickstartJob) -> str:
    with activity(job.console, f"looking for {job.choice.model}; the first time it is fetched"):
        job.base = job.choice.base_folder()
    if job.base is None:
        return f"{job.choice.model}: the training downloads it"
    return f"{job.choice.model}, in {job.base}"


def _finetune(job: QuickstartJob) -> str:
    options = job.options
    # The same command continues a training that was interrupted.
    extra = ["--seed", str(options.seed), "--resume-if-same"]
    extra += ["--epochs", str(options.epochs)] if options.epochs else []
    files = (job.data / "train.jsonl", job.data / "test.jsonl")
    model = str(job.base or job.choice.model) or None
    job.training = finetune_locally(
        *files,
        job.out,
        recipe=job.recipe,
        model=model,
        general_file=None if job.choice.is_tiny else paths.GENERAL_CHATS,
        extra=extra,
    )
    return f"loss {job.training.last_train_loss:.3f} after {job.training.steps} steps, in {job.out}"


def _before(job: QuickstartJob) -> str:
    model = job.base_model
    if model is None:
        return "skipped: the base model is not on this machine"
    _serve(job, BASE, model, port=0)
    result = _evaluate(job, BASE)
    if not job.options.keep_endpoint:
        _stop_base(job)
    return result


def _stop_base(job: QuickstartJob) -> None:
    stop_endpoint(job.options.workdir, BASE)
    restore_connection(job.options.workdir, job.connection(BASE), job.earlier.get(BASE))


def _start(job: QuickstartJob) -> str:
    return _serve(job, TUNED, job.out / "model", port=job.options.port)


def _chat(job: QuickstartJob) -> str:
    with activity(job.console, "running the flow"):
        inputs = {"input_data": job.question.question}
        job.answer = ask_flow(paths.FLOWS / "qa", inputs, job.options.engine)
    reference = job.question.reference
    wanted = "" if job.answer.strip() == reference.strip() else f" (the data says “{reference}”)"
    return f"“{job.question.question}” → “{job.answer}”{wanted}"


def _after(job: QuickstartJob) -> str:
    result = _evaluate(job, TUNED)
    scores = job.evaluations[TUNED].scores
    exact, f1 = (scores[name].get(TRAINED) for name in (EXACT_MATCH, TOKEN_F1))
    if exact and f1 and exact.mean < POOR_EXACT_MATCH and f1.mean < POOR_F1:
        epochs = job.training.epochs if job.training else 1
        job.notes.append(
            f"the model answers only {exact.mean:.0%} of the questions that it was trained on in the "
            f"words of the data: train longer, for example with --epochs {2 * max(epochs, 1):.0f}"
        )
    return result


def _start_page(job: QuickstartJob) -> str:
    connections = [job.connection(which) for which in (TUNED, BASE) if which in job.evaluations]
    job.started.add(PAGE)
    questions = job.data / "questions.jsonl"
    with activity(job.console, "starting the page"):
        running = start_page(connections, job.options.workdir, PAGE, questions=questions)
    job.page = running.url
    word = "connections" if len(connections) > 1 else "connection"
    return f"{running.url} with the {word} {' and '.join(connections)}"


Step = tuple[str, str, Callable[[QuickstartJob], str]]
STEPS: tuple[Step, ...] = (
    ("data", "Prepare the data", _data),
    ("model", "Get the model", _get_model),
    ("finetune", "Fine-tune the model", _finetune),
    ("before", "Evaluate the base model", _before),
    ("serve", "Serve the fine-tuned model and connect it", _start),
    ("chat", "Ask it through the flow", _chat),
    ("after", "Evaluate the fine-tuned model", _after),
    ("page", "Serve the chat page", _start_page),
)


def steps_of(job: QuickstartJob) -> list[Step]:
    """Return the steps of a quickstart: name, title and function."""
    unneeded = set() if job.options.keep_endpoint else {"page"}
    if job.choice.is_tiny:  # the training makes it
        unneeded.add("model")
    return [step for step in STEPS if step[0] not in unneeded]


def _serve(job: QuickstartJob, which: str, model: Path, *, port: int) -> str:
    key = secrets.token_urlsafe(32)
    workdir = job.options.workdir
    job.require_replaceable(which)
    job.started.add(which)
    with activity(job.console, f"loading {model}") as show:
        running = start_endpoint(model, workdir, which, key=key, port=port, progress=show)
    name, fields = job.connection(which), {"endpoint": running.url}
    reply = probe_endpoint(fields, key)
    job.earlier[which] = earlier_connection(workdir, name)
    record_connection(workdir, name, running.url)
    state = save_connection(name, fields, key)
    connection = f"connection {name!r} {state}, {reply.contract} contract"
    return f"{running.url} with {running.runtime}; {connection}"


def _evaluate(job: QuickstartJob, which: str) -> str:
    questions = job.data / "questions.jsonl"
    asking = f"asking {len(job.questions)} questions"
    left = TimeLeft()
    with activity(job.console, asking, every_s=PROGRESS_S) as show:
        answers, scores = ask_and_score(
            questions,
            title=f"quickstart-{which}",
            connection=job.connection(which),
            max_new_tokens=job.answer_tokens,
            on_progress=lambda progress: show(
                f"{progress.done} of {progress.lines} questions answered"
                + left.text(progress.done, progress.lines)
            ),
            engine=job.options.engine,
        )
    job.evaluations[which] = ModelEvaluation(
        answers_run=answers.name,
        scores_run=scores.name,
        lines=answers.lines,
        failed=answers.failed,
        scores={name: mean_by_kind(job.questions, scores, name) for name in METRICS},
    )
    failed = f", {answers.failed} of them failed" if answers.failed else ""
    return f"{answers.lines} questions asked{failed}; runs {answers.name} and {scores.name}"
