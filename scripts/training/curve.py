"""Draw the loss curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[dict[str, Any]]

INCHES, DOTS_PER_INCH = (8, 5.5), 144
TRAIN_COLOR, EVAL_COLOR = "#2a6fbb", "#d1495b"
SPEED_COLOR, GRADIENT_COLOR = "#4a7c59", "#a0522d"
RATE_COLOR, RATE_TEXT_COLOR = "#c4c8cf", "#9aa0a8"


def draw(
    history: History, path: Path, *, title: str, base_eval_loss: float, saved_step: int
) -> None:
    """Draw the losses over the steps with the learning rate behind them, and below them the speed.

    The lower part has the tokens per second and the norm of the gradient.

    The same history gives the same file.

    Args:
        history: the trainer's log, in the order of its steps.
        path: PNG file to write.
        title: title of the picture.
        base_eval_loss: evaluation loss of the base model, drawn at step 0.
        saved_step: step of the saved model, whose evaluation loss is written beside its point.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (loss_axes, speed_axes) = pyplot.subplots(
        2, figsize=INCHES, layout="constrained", sharex=True, height_ratios=(3, 1)
    )
    rate_axes, gradient_axes = loss_axes.twinx(), speed_axes.twinx()
    _draw_learning_rate(rate_axes, history)
    _draw_losses(loss_axes, history, base_eval_loss, saved_step)
    _draw_speed(speed_axes, gradient_axes, history)
    loss_axes.set_title(title, loc="left")
    loss_axes.set_zorder(rate_axes.get_zorder() + 1)
    loss_axes.patch.set_visible(False)
    for axes in (loss_axes, rate_axes, speed_axes, gradient_axes):
        axes.spines[["top", "right", "left"]].set_visible(False)
    # Without matplotlib's version, the file is the same on every machine.
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
    pyplot.close(figure)


def _draw_learning_rate(axes: Axes, history: History) -> None:
    axes.fill_between(*columns(history, "learning_rate"), color=RATE_COLOR, alpha=0.35, linewidth=0)
    axes.set_ylabel("learning rate", color=RATE_TEXT_COLOR)
    axes.tick_params(axis="y", colors=RATE_TEXT_COLOR)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_ylim(bottom=0)


def _draw_speed(axes: Axes, gradient_axes: Axes, history: History) -> None:
    drawn = (
        (axes, "tokens_per_second", "tokens/s", SPEED_COLOR),
        (gradient_axes, "grad_norm", "gradient norm", GRADIENT_COLOR),
    )
    for part, key, label, color in drawn:
        part.plot(*columns(history, key), color=color, linewidth=1.2)
        part.set_ylabel(label, color=color)
        part.tick_params(axis="y", colors=color)
        part.set_ylim(bottom=0)
    axes.set_xlabel("step")


def _draw_losses(axes: Axes, history: History, base_eval_loss: float, saved_step: int) -> None:
    axes.plot(*columns(history, "loss"), color=TRAIN_COLOR, label="training", linewidth=1.8)
    steps, losses = columns(history, "eval_loss")
    steps, losses = [0, *steps], [base_eval_loss, *losses]
    axes.plot(
        steps, losses, color=EVAL_COLOR, label="evaluation", linewidth=1.8, marker="o", markersize=4
    )
    saved = steps.index(saved_step) if saved_step in steps else -1
    axes.annotate(
        f"{losses[saved]:.3f}", (steps[saved], losses[saved]), (0, 6), textcoords="offset points",
        color=EVAL_COLOR, ha="right", va="bottom",
    )  # fmt: skip
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False)


def columns(history: History, key: str) -> tuple[list[int], list[float]]:
    """Return the steps whose log entry has a key, and the values of that key."""
    entries = [entry for entry in history if key in entry]
    return [entry["step"] for entry in entries], [entry[key] for entry in entries]
