"""Jobs of Azure ML and runs of Prompt flow's service: the statuses and names that both have."""

from __future__ import annotations

ENDED_BADLY = ("Failed", "Canceled", "NotResponding")
COMPLETED = "Completed"
HASH_LENGTH = 12
MOST_TRIES = 100  # jobs of the same content, each submitted again after the previous one failed
