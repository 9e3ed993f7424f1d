"""Score exported GGUF files beside the model that they were made from, with flows/qa and flows/eval."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3_tools.evaluation import Mean

from .. import paths
from ..endpoint import start_endpoint, stop_endpoint
from ..errors import OpsError
from ..files import read_jsonl
from ..models import resolve_folder
from ..pf import delete_connection, save_connection
from ..runs import ProgressCallback, answer_tokens, ask_and_score, mean_by_kind
from .export import ExportedModel, Notify
from .formats import FORMATS
from .llama_server import llama_server
from .source import model_folder

EXACT_MATCH, TOKEN_F1 = "exact_match", "token_f1"
ALL = "all"  # kind of rows without one
SLOTS, TOKENS_PER_SLOT = 4, 2048
_PREFIX = (
    "phi3-export"  # of the names of connections and endpoints, which exist during the evaluation
)


@dataclass(frozen=True)
class EvaluatedModel:
    """The scores of a model.

    Attributes:
        name: name of the model or its quantization.
        size: bytes of its weights.
        exact_match: kind of question -> mean of the exact matches.
        token_f1: kind of question -> mean of the F1 scores of the tokens.
        failed: number of questions without an answer.
        runs: names of the run with the answers and of the run with the scores.
    """

    name: str
    size: int
    exact_match: Mapping[str, Mean]
    token_f1: Mapping[str, Mean]
    failed: int
    runs: tuple[str, str]


def check_evaluation_of_export(target: str, questions: Path) -> None:
    """Check before an export that its models can be evaluated.

    Raises:
        OpsError: the format is not GGUF, or the file has no questions and answers.
    """
    if not FORMATS[target].is_gguf:
        fix = "Use --to gguf or --to ollama, or leave out --evaluate."
        raise OpsError(f"--evaluate cannot run models of the format {target}", fix)
    if not questions.is_file():
        fix = "Run `phi3 data`, which writes it, or give a file with --evaluate FILE."
        raise OpsError(f"the questions file {questions} does not exist", fix)
    rows = read_jsonl(questions)
    if not rows or not all({"question", "ground_truth"} <= row.keys() for row in rows):
        fix = "Each line must be a JSON object with `question` and `ground_truth`."
        raise OpsError(f"{questions} has no questions, or a line lacks a field", fix)


def evaluate_export(
    exported: ExportedModel,
    model: str,
    questions: Path,
    *,
    base: str | None = None,
    workdir: Path = paths.WORKDIR,
    notify: Notify = lambda message: None,
    on_progress: ProgressCallback | None = None,
) -> list[EvaluatedModel]:
    """Score the base model, the exported model and each of its GGUF files, greedily.

    Args:
        exported: the export.
        model: the model that was exported.
        questions: JSONL with `question`, `ground_truth` and, optionally, `kind`.
        base: another model to score first, or None.
        workdir: folder for the logs of the endpoints.
        notify: function that gets a message before each model.
        on_progress: called whenever a question has been answered.

    Raises:
        OpsError: a model cannot be served, or all of its answers failed.
    """
    rows = [{"kind": ALL, **row} for row in read_jsonl(questions)]
    score = functools.partial(_score, questions=questions, rows=rows, on_progress=on_progress)
    scored = []
    for name, reference in (("base", base), ("model", model)):
        if reference is None:
            continue
        folder = model_folder(resolve_folder(reference))
        notify(f"scoring {reference}")
        with _endpoint_connection(folder, workdir, name) as connection:
            title = f"{name} ({reference})"
            scored.append(score(title, _weight_bytes(folder), connection))
    for file in exported.files:
        notify(f"scoring {file.name} in llama.cpp")
        with _llama_connection(exported.folder / file.name) as connection:
            scored.append(score(file.quantization, file.size, connection))
    return scored


def _score(
    name: str,
    size: int,
    connection: str,
    *,
    questions: Path,
    rows: Sequence[Mapping[str, Any]],
    on_progress: ProgressCallback | None,
) -> EvaluatedModel:
    answers, scores = ask_and_score(
        questions,
        title=connection,
        connection=connection,
        max_new_tokens=answer_tokens(rows),
        on_progress=on_progress,
    )
    return EvaluatedModel(
        name=name,
        size=size,
        exact_match=mean_by_kind(rows, scores, EXACT_MATCH),
        token_f1=mean_by_kind(rows, scores, TOKEN_F1),
        failed=answers.failed,
        runs=(answers.name, scores.name),
    )


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@contextmanager
def _endpoint_connection(folder: Path, workdir: Path, which: str) -> Iterator[str]:
    """Serve a model with the local endpoint inside the block, and yield a connection to it."""
    name, key = f"{_PREFIX}-{which}", secrets.token_urlsafe(32)
    running = start_endpoint(folder, workdir, name, key=key)
    try:
        with _connection(name, {"endpoint": running.url}, key) as connection:
            yield connection
    finally:
        stop_endpoint(workdir, name)


@contextmanager
def _llama_connection(file: Path) -> Iterator[str]:
    """Serve a GGUF file with llama.cpp inside the block, and yield a connection to it."""
    with llama_server(file, slots=SLOTS, tokens=TOKENS_PER_SLOT) as server:
        fields = {"endpoint": f"{server.url}/v1", "contract": "openai", "model": file.stem}
        with _connection(f"{_PREFIX}-{file.stem.lower()}", fields, server.key) as connection:
            yield connection


@contextmanager
def _connection(name: str, fields: Mapping[str, str], key: str) -> Iterator[str]:
    """Write a connection of a new name, and delete it after the block."""
    unique = f"{name}-{secrets.token_hex(3)}"
    save_connection(unique, fields, key)
    try:
        yield unique
    finally:
        delete_connection(unique)
