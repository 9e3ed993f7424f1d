"""The results of a quickstart: the evaluations of both models, and summary.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi3_tools.evaluation import Mean

BASE, TUNED = "base", "tuned"
SUMMARY_FILE = "summary.json"  # in the workdir
PAGE = "page"  # name of the chat page among the endpoints of the workdir
EXACT_MATCH, TOKEN_F1 = "exact_match", "token_f1"
METRICS = (EXACT_MATCH, TOKEN_F1)


@dataclass(frozen=True)
class ModelEvaluation:
    """The evaluation of one model.

    Attributes:
        answers_run, scores_run: names of the runs in Prompt flow's store.
        lines: number of questions.
        failed: number of questions without an answer.
        scores: metric -> kind of question -> mean.
    """

    answers_run: str
    scores_run: str
    lines: int
    failed: int
    scores: dict[str, dict[str, Mean]]

    def means(self, metric: str) -> dict[str, float]:
        """Return the mean of a metric for each kind of question."""
        return {kind: round(mean.mean, 4) for kind, mean in self.scores[metric].items()}


@dataclass(frozen=True)
class FirstQuestion:
    """The first question of the data.

    Attributes:
        question: the question.
        reference: the answer that the data gives.
    """

    question: str
    reference: str


@dataclass(frozen=True)
class LossChange:
    """The loss on some chats, in nats per token, before and after the training.

    Attributes:
        rows: number of chats.
        before: loss of the base model.
        after: loss of the fine-tuned model.
    """

    rows: int
    before: float
    after: float


@dataclass(frozen=True)
class QuickstartSummary:
    """The results of a quickstart, as `summary.json` contains them.

    Attributes:
        seed: seed of the data split and of the training.
        base: folder of the base model; or its name, if the training makes or downloads it.
        recipe: recipe of the training.
        seconds: step -> duration in seconds.
        peak_memory: peak memory of all processes, in bytes; 0 if it is unknown.
        rows: kind of question -> number of rows in the data.
        asked: kind of question -> number of questions that both models were asked.
        answer_tokens: maximum number of tokens of an answer, for both models.
        before: evaluation of the base model; None if it was skipped.
        after: evaluation of the fine-tuned model.
        general_loss: loss on general chats, which no training row resembles; None if it was not measured.
        question: the first question of the data, with the answer that the data gives.
        answer: the fine-tuned model's answer to it.
        model: folder of the fine-tuned model.
        connection: name of the connection to it.
        page: address of the chat page, or None if it is not running.
    """

    seed: int
    base: str
    recipe: str
    seconds: dict[str, float]
    peak_memory: int
    rows: dict[str, int]
    asked: dict[str, int]
    answer_tokens: int
    before: ModelEvaluation | None
    after: ModelEvaluation
    general_loss: LossChange | None
    question: FirstQuestion
    answer: str
    model: Path
    connection: str
    page: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        evaluations = {"before": self.before, "after": self.after}
        runs = {BASE: self.before, TUNED: self.after}
        return {
            "seed": self.seed,
            "base": self.base,
            "recipe": self.recipe,
            "seconds": {**self.seconds, "total": round(sum(self.seconds.values()), 2)},
            "peak_memory_bytes": self.peak_memory,
            "questions": {
                kind: {"asked": self.asked[kind], "rows": rows} for kind, rows in self.rows.items()
            },
            "answer_tokens": self.answer_tokens,
            **{
                metric: {name: e and e.means(metric) for name, e in evaluations.items()}
                for metric in METRICS
            },
            "general_loss": self.general_loss and asdict(self.general_loss),
            "lines": {
                name: e and {"lines": e.lines, "failed": e.failed}
                for name, e in evaluations.items()
            },
            "runs": {name: [e.answers_run, e.scores_run] for name, e in runs.items() if e},
            "answer": {**asdict(self.question), "text": self.answer},
            "model": str(self.model),
            "connection": self.connection,
            "page": self.page,
        }
