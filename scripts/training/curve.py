"""The loss curve's picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

INCHES, DOTS_PER_INCH = (8, 4.5), 144
TRAIN, EVAL, RATE = "#2a6fbb", "#d1495b", "#c4c8cf"


def draw(
    history: Sequence[dict[str, Any]], path: Path, *, title: str, base_eval_loss: float
) -> None:
    """Draw the training's and the evaluations' loss over the steps, the learning rate lightly.

    The same history gives the same file.

    Args:
        history: the trainer's log, in the order of its steps.
        path: a PNG file.
        title: above the picture.
        base_eval_loss: the base model's, drawn at step 0.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    evaluations = [(0, base_eval_loss), *series(history, "eval_loss")]
    figure, losses = pyplot.subplots(figsize=INCHES, layout="constrained")
    rates = losses.twinx()
    rates.fill_between(*columns(history, "learning_rate"), color=RATE, alpha=0.35, linewidth=0)
    rates.set_ylabel("learning rate", color="#9aa0a8")
    rates.tick_params(axis="y", colors="#9aa0a8")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rates.set_ylim(bottom=0)

    losses.plot(*columns(history, "loss"), color=TRAIN, label="training", linewidth=1.8)
    losses.plot(
        *zip(*evaluations), color=EVAL, label="evaluation", linewidth=1.8, marker="o", markersize=4
    )
    losses.annotate(
        f"{evaluations[-1][1]:.3f}", evaluations[-1], (0, 6), textcoords="offset points",
        color=EVAL, ha="right", va="bottom",
    )  # fmt: skip
    losses.set_zorder(rates.get_zorder() + 1)
    losses.patch.set_visible(False)
    losses.set_title(title, loc="left")
    losses.set_xlabel("step")
    losses.set_ylabel("loss (nats per token)")
    losses.set_ylim(bottom=0)
    losses.margins(x=0.01)
    losses.grid(axis="y", alpha=0.25)
    losses.legend(frameon=False)
    for axes in (losses, rates):
        axes.spines[["top", "right", "left"]].set_visible(False)
    # Without matplotlib's version the file is the same wherever it is drawn.
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
    pyplot.close(figure)


def series(history: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """(step, value) wherever the log has that key."""
    return [(entry["step"], entry[key]) for entry in history if key in entry]


def columns(history: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    points = series(history, key)
    return [step for step, _ in points], [value for _, value in points]
