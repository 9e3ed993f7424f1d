"""Jobs of Azure ML and runs of Prompt flow's service: statuses and names; follow a job to its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ..errors import OpsError
from ..terminal import VisibleLog
from .cloud import Cloud, state_text
from .faults import find_resource, named_errors

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
        kind: Azure's word for the job, for the error.
        find: function that returns the job of a name, with its `status`, or None.

    Raises:
        OpsError: `MOST_TRIES` attempts have failed.
    """
    for attempt in range(1, MOST_TRIES + 1):
        name = first if attempt == 1 else f"{first}-{attempt}"
        job = find(name)
        if job is None or job.status not in ENDED_BADLY:
            return name, job
    raise OpsError(f"the {kind} {first} failed {MOST_TRIES} times", "Look at its logs.")


def follow_job(cloud: Cloud, name: str) -> None:
    """Print a job's log until the job ends.

    Raises:
        OpsError: the job did not complete.
    """
    with named_errors(f"following {name}"):
        from azure.ai.ml.exceptions import JobException

        try:
            with contextlib.redirect_stdout(VisibleLog()):
                cloud.ml.jobs.stream(name)
        except JobException as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                # The SDK turns Ctrl-C into an error of its own. The job goes on.
                raise KeyboardInterrupt from error
            raise OpsError(f"the job {name} failed", _logs_hint(cloud, name)) from error
    require_completed(cloud, name)


def require_completed(cloud: Cloud, name: str) -> Any:
    """Return the job of that name.

    Raises:
        OpsError: the job does not exist, or it has not completed.
    """
    with named_errors(f"reading the job {name}"):
        job = find_resource(lambda: cloud.ml.jobs.get(name))
    if job is None:
        raise OpsError(f"the job {name} does not exist", "Submit one with `phi3 finetune`.")
    if job.status != COMPLETED:
        status = state_text(job.status)
        raise OpsError(f"the job {name} is {status}, not {COMPLETED}", _logs_hint(cloud, name))
    return job


def _logs_hint(cloud: Cloud, name: str) -> str:
    workspace = cloud.config.azure.workspace
    return f"See its logs: az ml job stream --name {name} --workspace-name {workspace}."
