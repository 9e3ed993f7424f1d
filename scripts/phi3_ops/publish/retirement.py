"""The end of Prompt flow's service: what its commands say before that date, and that they stop after it.

Source: "Prompt flow retirement" (Microsoft Learn, azure-ai-docs,
articles/machine-learning/includes/prompt-flow-retirement.md).
"""

from __future__ import annotations

from datetime import date

from ..errors import OpsError

RETIREMENT_DATE = date(2027, 4, 20)
SUCCESSORS = (
    "Export the flow with `phi3 flow export`, or run it with `phi3 run` and `phi3 serve`, which do not "
    "need the service. See docs/after-promptflow.md."
)


def today() -> date:
    """Return the current date; tests replace this function."""
    return date.today()


def refuse_after_retirement(command: str) -> None:
    """Raise OpsError if Prompt flow's service has ended.

    Args:
        command: the command that needs the service, such as `phi3 flow upload`.
    """
    if today() >= RETIREMENT_DATE:
        what = f"{command} needs Prompt flow's service, which ended on {RETIREMENT_DATE}"
        raise OpsError(what, SUCCESSORS)


def retirement_notice() -> str:
    """Return the line that the commands of Prompt flow's service end with."""
    return f"note: Prompt flow's service ends on {RETIREMENT_DATE}. {SUCCESSORS}"
