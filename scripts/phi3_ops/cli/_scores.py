"""Print batches and their scores, as text or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..terminal import one_line, print_text
from ._records import print_json

if TYPE_CHECKING:
    from rich.table import Table

    from ..runs import Batch


@dataclass(frozen=True)
class ScoredBatch:
    """A batch, and the run with its scores; None if it was not scored."""

    batch: Batch
    scores: Batch | None = None


def print_batch(batch: Batch, seconds: float | None = None, tokens: int = 0) -> None:
    """Print the name of a batch, its counts, its first failure and how to see more.

    Args:
        batch: the batch.
        seconds: duration; None leaves out the rate.
        tokens: number of tokens of the answers; 0 leaves it out.
    """
    rate = f", {seconds:.1f} s, {batch.lines / seconds:.1f} lines/s" if seconds else ""
    counted = f", {tokens:,} tokens" if tokens else ""
    print_text(f"{batch.name}: {batch.lines} lines, {batch.failed} failed{rate}{counted}")
    if batch.failed and batch.reason:
        print_text(f"  first failure: {one_line(batch.reason)}")
    print_text(f"  details: phi3 runs --show {batch.name}")


def score_table(scored: Batch) -> Table:
    """Return a table with the mean of each score over all lines."""
    from rich import box
    from rich.table import Table

    from ..runs import mean_scores

    table = Table(box=box.SIMPLE_HEAD, title=f"{scored.name} (a line without an answer counts 0)")
    for head in ("metric", "mean", "± standard error", "n"):
        table.add_column(head, justify="left" if head == "metric" else "right")
    for name, mean in mean_scores(scored).items():
        table.add_row(name, f"{mean.mean:.4f}", f"{mean.stderr:.4f}", str(mean.n))
    return table


def print_scores_as_json(batches: Sequence[ScoredBatch]) -> None:
    """Print one item per score, and the runs of the batches.

    Args:
        batches: the batches; a replay has one per turn.
    """
    items = [
        item for entry in batches if entry.scores for item in _score_items(entry, entry.scores)
    ]
    print_json(items, runs=[_run_record(entry) for entry in batches])


def _score_items(entry: ScoredBatch, scores: Batch) -> list[dict[str, Any]]:
    from ..runs import mean_scores

    means = mean_scores(scores).items()
    return [{"run": entry.batch.name, "metric": name, **asdict(mean)} for name, mean in means]


def _run_record(entry: ScoredBatch) -> dict[str, Any]:
    batch = entry.batch
    return {
        "name": batch.name,
        "lines": batch.lines,
        "answered": len(batch.answers),
        "failed": batch.failed,
        "first_failure": one_line(batch.reason) if batch.failed and batch.reason else None,
        "scores_run": entry.scores.name if entry.scores else None,
    }
