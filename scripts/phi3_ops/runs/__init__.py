"""Batch runs on this machine: run a flow over a data file, resume it, and read its folder back.

It may import `azure`, `flows`, `endpoint`, `pf` and `data`.
"""

from __future__ import annotations

from .batch import (
    COMPLETED,
    DATA_HASH,
    DEFAULT_IN_FLIGHT,
    Batch,
    BatchProgress,
    ProgressCallback,
    ask_and_score,
    find_run,
    load_batch,
    mean_by_kind,
    resume_run,
    run_flow,
)
from .conversations import count_unanswered_turns, replay_conversations
from .properties import (
    ENDPOINTS_PROPERTY,
    SHORT_HASH,
    describe_connection,
    run_properties,
    url_without_secrets,
)
from .scored import THRESHOLDS_FILE, RowsByLine, ScoredRun, load_scored_run

__all__ = [
    "Batch",
    "BatchProgress",
    "COMPLETED",
    "DATA_HASH",
    "DEFAULT_IN_FLIGHT",
    "ENDPOINTS_PROPERTY",
    "ProgressCallback",
    "RowsByLine",
    "SHORT_HASH",
    "ScoredRun",
    "THRESHOLDS_FILE",
    "ask_and_score",
    "count_unanswered_turns",
    "describe_connection",
    "find_run",
    "load_batch",
    "load_scored_run",
    "mean_by_kind",
    "replay_conversations",
    "resume_run",
    "run_flow",
    "run_properties",
    "url_without_secrets",
]
