"""Score the answers of a batch with an evaluation flow, and average the scores over all lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3_tools.evaluation import Mean, mean_of

from .. import paths
from ..errors import OpsError
from ..files import read_jsonl
from ..flows import FlowDefinition
from ..pf import PHI3, require_connection
from .batch import (
    DEFAULT_IN_FLIGHT,
    Batch,
    ProgressCallback,
    all_keys,
    choose_columns,
    require_data_file,
    run_flow,
)
from .lookup import require_run

BYTES_PER_TOKEN = 2  # of an answer; English has about four
LEAST_TOKENS, MOST_TOKENS = 32, 256


def answer_tokens(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return the maximum number of tokens of an answer: enough for the longest reference.

    Args:
        rows: rows with `ground_truth`.
    """
    longest = max((len(row["ground_truth"].encode()) for row in rows), default=0)
    return min(max(longest // BYTES_PER_TOKEN, LEAST_TOKENS), MOST_TOKENS)


def check_evaluation(evaluation: FlowDefinition, asked: FlowDefinition, data: Path) -> None:
    """Check before the first question that an evaluation flow can score the answers of a flow.

    Args:
        evaluation: the evaluation flow.
        asked: the flow whose answers it scores.
        data: the data file of both.

    Raises:
        OpsError: an input of the evaluation flow has no source, or its connection does not exist.
    """
    columns = all_keys(read_jsonl(data))
    sources = {*columns, *asked.outputs}
    for name, definition in evaluation.inputs.items():
        if name not in sources and "default" not in definition:
            raise OpsError(
                f"{evaluation.folder}, the flow of --evaluate, needs a column {name!r}",
                f"{data} has the columns {', '.join(columns)}, and {asked.folder} has the outputs "
                f"{', '.join(asked.outputs)}. Rename a column.",
            )
    evaluation.columns({}, columns, asked.outputs)
    for connection in evaluation.connection_names({}).values():
        require_connection(connection)


def check_evaluation_of_run(evaluation: FlowDefinition, name: str) -> None:
    """Check that an evaluation flow can score the answers of a stored run, see `check_evaluation`.

    Args:
        evaluation: the evaluation flow.
        name: name or display name of the run.
    """
    run = require_run(name)
    if run.flow:
        check_evaluation(evaluation, FlowDefinition.read(run.flow), require_data_file(run))


def score_batch(
    flow: FlowDefinition,
    base: Batch,
    *,
    in_flight: int = DEFAULT_IN_FLIGHT,
    on_progress: ProgressCallback | None = None,
    engine: str = PHI3,
) -> Batch:
    """Run an evaluation flow over the answers of a batch and its data file.

    Args:
        flow: the evaluation flow.
        base: the batch whose answers are scored.
        in_flight: maximum number of lines that run at once.
        on_progress: called whenever a line has ended.
        engine: as in `run_flow`.

    Raises:
        OpsError: an input of the flow has no source, or the run failed as a whole.
    """
    data = require_data_file(require_run(base.name))
    return run_flow(
        flow.folder,
        data,
        choose_columns(flow, data, {}, base),
        title=f"{base.name}-{flow.folder.resolve().name}",
        base=base,
        in_flight=in_flight,
        on_progress=on_progress,
        engine=engine,
    )


def ask_and_score(
    data: Path,
    *,
    title: str,
    connection: str,
    max_new_tokens: int | None = None,
    on_progress: ProgressCallback | None = None,
    engine: str = PHI3,
) -> tuple[Batch, Batch]:
    """Send every question of a data file to flows/qa, then score the answers with flows/eval.

    Args:
        data: JSONL with `question` and `ground_truth`.
        title: display name of the first run, and the start of the second one's.
        connection: connection to the endpoint.
        max_new_tokens: maximum number of tokens of an answer; None takes the flow's number.
        on_progress: called whenever a question has been answered.
        engine: as in `run_flow`.

    Returns:
        The run with the answers and the run with the scores.

    Raises:
        OpsError: every line failed, so there is no answer to score; or a run stopped because the same
            lasting error came again and again.
        BatchInterrupted: a Ctrl-C stopped one of the runs.
    """
    columns = {"input_data": "${data.question}"}
    if max_new_tokens is not None:
        columns["max_new_tokens"] = str(max_new_tokens)
    asked = run_flow(
        paths.FLOWS / "qa",
        data,
        columns,
        title=title,
        connections={"answer": {"connection": connection}},
        on_progress=on_progress,
        engine=engine,
    )
    if not asked.answers:
        raise OpsError(f"all {asked.lines} lines of {asked.name} failed: {asked.reason}")
    scored = run_flow(
        paths.FLOWS / "eval",
        data,
        {"answer": "${run.outputs.answer}", "ground_truth": "${data.ground_truth}"},
        title=f"{title}-eval",
        base=asked,
        engine=engine,
    )
    return asked, scored


def mean_scores(scored: Batch) -> dict[str, Mean]:
    """Return the mean of each numeric output of an evaluation. A line without a score counts 0.

    Args:
        scored: the run of the evaluation flow.
    """
    means = {}
    for name in all_keys(scored.answers.values()):
        values = [answer[name] for answer in scored.answers.values()]
        numbers = [float(value) for value in values if isinstance(value, (int, float))]
        if numbers:
            means[name] = mean_of(numbers, failures=scored.lines - len(numbers))
    return means


def mean_by_kind(
    rows: Sequence[Mapping[str, Any]], scored: Batch, metric: str = "exact_match"
) -> dict[str, Mean]:
    """Return the mean of a metric for each `kind` of row. A line without a score counts 0.

    Args:
        rows: the rows of the data file, in order.
        scored: the run of flows/eval over that file.
        metric: name of an output of flows/eval.
    """
    values_by_kind: dict[str, list[float]] = {}
    for line, row in enumerate(rows):
        value = scored.answers.get(line, {}).get(metric)
        score = float(value) if isinstance(value, (int, float)) else 0.0
        values_by_kind.setdefault(row["kind"], []).append(score)
    return {kind: mean_of(values) for kind, values in values_by_kind.items()}
