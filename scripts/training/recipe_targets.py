"""The sections of a recipe about the hub, the trackers and the mixture of files."""

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
# Sections that are refused by name, with the reason.
REFUSED_SECTIONS = {
    "streaming": "the rows are read into memory, to count the rows that max_length cuts and to "
    "recognize a run that is resumed; use --rows, or a file that fits into memory",
}


def find_problem(content: Mapping[str, Any]) -> str | None:
    """Return the first problem of these sections, or None if they are valid."""
    return _report_problem(content) or _push_problem(content) or _mixture_problem(content)


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
