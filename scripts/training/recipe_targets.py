"""The sections of a recipe about the hub, the trackers, the mixture of files and streaming."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MLFLOW = "mlflow"
# The trackers of `report_to`, and the packages that they need.
TRACKERS = {
    MLFLOW: "mlflow-skinny", "trackio": "trackio", "wandb": "wandb", "tensorboard": "tensorboard",
}  # fmt: skip
STREAMING_KEYS = {"shuffle_buffer"}
# Settings of `trainer` that are refused with `streaming`, with the reason.
WITHOUT_STREAMING = {
    "packing": "packed sequences would be in the order of their lengths; use `rows_per_sequence`",
    "train_sampling_strategy": "the order is that of the files and of streaming.shuffle_buffer",
    "shuffle_dataset": "use streaming.shuffle_buffer",
    "dataloader_num_workers": "one process reads the rows",
}


def find_problem(content: Mapping[str, Any]) -> str | None:
    """Return the first problem of these sections, or None if they are valid."""
    return (
        _report_problem(content)
        or _push_problem(content)
        or _mixture_problem(content)
        or _streaming_problem(content)
    )


def _report_problem(content: Mapping[str, Any]) -> str | None:
    names = content.get("report_to", [])
    for name in names:
        if name not in TRACKERS:
            return f"the recipe's report_to has {name!r}, and may have {', '.join(TRACKERS)}"
    if len(set(names)) < len(names):
        return "the recipe's report_to has a name twice"
    return None


def _push_problem(content: Mapping[str, Any]) -> str | None:
    repository = content.get("hub_model_id")
    for key in ("hub_model_id", "hub_private"):
        if key in content and not content.get("push_to_hub"):
            return f"the recipe has `{key}` without `push_to_hub: true`"
    if content.get("push_to_hub") and repository is None:
        return "the recipe has `push_to_hub` without `hub_model_id`"
    if repository is not None and not HUB_ID.fullmatch(repository):
        return "the recipe's hub_model_id is not owner/name"
    return None


def _mixture_problem(content: Mapping[str, Any]) -> str | None:
    weights = content.get("mixture")
    if weights is None:
        return None
    for name, weight in weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < float("inf"):
            return f"the recipe's mixture.{name} is not a number above 0"
    if len(weights) < 2:
        return "the recipe's mixture has fewer than two files"
    return None


def _streaming_problem(content: Mapping[str, Any]) -> str | None:
    values = content.get("streaming")
    if values is None:
        return None
    if values.keys() != STREAMING_KEYS:
        return "the recipe's streaming needs shuffle_buffer, and no other setting"
    if type(values["shuffle_buffer"]) is not int or values["shuffle_buffer"] < 1:
        return "the recipe's streaming.shuffle_buffer is not an integer above 0"
    trainer = content.get("trainer", {})
    if trainer.get("max_steps", -1) < 1:
        return "the recipe has `streaming` without `trainer.max_steps`, which ends the training"
    for key, reason in WITHOUT_STREAMING.items():
        if trainer.get(key):
            return f"the recipe has `streaming` with trainer.{key} ({reason})"
    if content.get("method") == "dpo":
        return "the recipe has `streaming` with `method: dpo`, which reads the rows into memory"
    return None
