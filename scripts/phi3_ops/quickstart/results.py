"""The results of a quickstart: the evaluations of both models, and summary.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3_tools.evaluation import Mean

BASE, TUNED = "base", "tuned"
EXACT_MATCH, TOKEN_F1 = "exact_match", "token_f1"
METRICS = (EXACT_MATCH, TOKEN_F1)
DEMO_QUESTION = "Who founded Microsoft?"


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

    @property
    def exact_match(self) -> dict[str, float]:
        """Share of exact answers for each kind of question."""
        return {kind: round(mean.mean, 4) for kind, mean in self.scores[EXACT_MATCH].items()}


@dataclass(frozen=True)
class QuickstartSummary:
    """The results of a quickstart, as `summary.json` contains them.

    Attributes:
        seed: seed of the data split and of the training.
        seconds: step -> duration in seconds.
        before: evaluation of the untrained model; None if it was skipped.
        after: evaluation of the fine-tuned model.
        answer: answer to DEMO_QUESTION.
        model: folder of the fine-tuned model.
        connection: name of the connection to it.
    """

    seed: int
    seconds: dict[str, float]
    before: ModelEvaluation | None
    after: ModelEvaluation
    answer: str
    model: Path
    connection: str

    def to_json(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        evaluations = {"before": self.before, "after": self.after}
        runs = {BASE: self.before, TUNED: self.after}
        return {
            "seed": self.seed,
            "seconds": {**self.seconds, "total": round(sum(self.seconds.values()), 2)},
            "exact_match": {name: e and e.exact_match for name, e in evaluations.items()},
            "lines": {
                name: e and {"lines": e.lines, "failed": e.failed}
                for name, e in evaluations.items()
            },
            "runs": {name: [e.answers_run, e.scores_run] for name, e in runs.items() if e},
            "answer": {"question": DEMO_QUESTION, "text": self.answer},
            "model": str(self.model),
            "connection": self.connection,
        }
