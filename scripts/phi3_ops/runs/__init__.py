"""Batch runs on this machine: run a flow over a data file, resume it, score it, and read its folder.

It may import `azure`, `flows`, `endpoint`, `pf`, `data` and `phi3_tools`.
"""

from __future__ import annotations

from .batch import (
    DEFAULT_IN_FLIGHT,
    Batch,
    BatchInterrupted,
    BatchProgress,
    BatchStopped,
    ProgressCallback,
    choose_columns,
    load_batch,
    run_app,
    run_flow,
)
from .continuation import continue_flow, furthest_run, lines_left, usage_of_run
from .conversations import count_unanswered_turns, replay_conversations
from .details import RunDetails, delete_run, list_runs, run_details
from .evaluation import (
    answer_tokens,
    ask_and_score,
    check_evaluation,
    check_evaluation_of_run,
    mean_by_kind,
    mean_scores,
    score_batch,
)
from .line_inputs import line_inputs
from .lookup import earlier_run, run_name
from .properties import (
    SHORT_HASH,
    TOKEN_COUNTS,
    ConnectionFacts,
    RunProperties,
    url_without_secrets,
)
from .records import LineUsage
from .resume import resume_run
from .scored import (
    RunLocation,
    ScoredRun,
    answers_location,
    list_evaluations,
    load_scored_run,
)
from .single import run_once
from .store import OUTPUT_FOLDER, SNAPSHOT, THRESHOLDS_FILE, write_run_folder

__all__ = [
    "Batch",
    "BatchInterrupted",
    "BatchStopped",
    "BatchProgress",
    "ConnectionFacts",
    "DEFAULT_IN_FLIGHT",
    "LineUsage",
    "OUTPUT_FOLDER",
    "ProgressCallback",
    "RunLocation",
    "RunProperties",
    "SHORT_HASH",
    "SNAPSHOT",
    "RunDetails",
    "ScoredRun",
    "THRESHOLDS_FILE",
    "TOKEN_COUNTS",
    "answer_tokens",
    "answers_location",
    "ask_and_score",
    "check_evaluation",
    "check_evaluation_of_run",
    "choose_columns",
    "continue_flow",
    "count_unanswered_turns",
    "delete_run",
    "earlier_run",
    "furthest_run",
    "line_inputs",
    "lines_left",
    "list_evaluations",
    "list_runs",
    "load_batch",
    "load_scored_run",
    "mean_by_kind",
    "mean_scores",
    "replay_conversations",
    "resume_run",
    "run_app",
    "run_details",
    "run_flow",
    "run_name",
    "run_once",
    "score_batch",
    "url_without_secrets",
    "usage_of_run",
    "write_run_folder",
]
