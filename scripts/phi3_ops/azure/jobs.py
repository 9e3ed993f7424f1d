"""Jobs of Azure ML and runs of Prompt flow's service: the statuses and names that both have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import OpsError

ENDED_BADLY = ("Failed", "Canceled", "NotResponding")
COMPLETED = "Completed"
HASH_LENGTH = 12
MOST_TRIES = 100  # jobs of the same content, each submitted again after the previous one failed


def newest_attempt(
    first: str, kind: str, find: Callable[[str], Any | None]
) -> tuple[str, Any | None]:
    """Return the name under which content is submitted now, and the job of that name if it exists.

    A job that failed under a name is followed by one of the same name with `-2`, then `-3`, and so on.

    Args:
        first: name of the first attempt.
        kind: what Azure calls it, for the error.
        find: returns the job of a name, with its `status`, or None.

    Raises:
        OpsError: `MOST_TRIES` attempts have failed.
    """
    for attempt in range(1, MOST_TRIES):
        name = first if attempt == 1 else f"{first}-{attempt}"
        job = find(name)
        if job is None or job.status not in ENDED_BADLY:
            return name, job
    raise OpsError(f"the {kind} {first} failed {MOST_TRIES} times", "Look at its logs.")
