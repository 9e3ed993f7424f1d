"""Flows in a Foundry project: upload, check, and promote a version behind a gate.

It may import `deploy`, `doctor`, `comparison` and every room below them.
"""

from __future__ import annotations

from .check import check_flow, check_with_local_connection, check_with_shared_connection
from .promote import Gate, gate_reasons, judge_gate, project_for_gate, refuse_unfit_run
from .upload import (
    FoundryProject,
    diff_flow,
    display_name,
    list_uploads,
    plan_upload,
    pull_flow,
    require_locked,
    stage_flow,
    staged_flow,
    upload_rows,
)

__all__ = [
    "FoundryProject",
    "Gate",
    "check_flow",
    "check_with_local_connection",
    "check_with_shared_connection",
    "diff_flow",
    "display_name",
    "gate_reasons",
    "judge_gate",
    "list_uploads",
    "plan_upload",
    "project_for_gate",
    "pull_flow",
    "refuse_unfit_run",
    "require_locked",
    "stage_flow",
    "staged_flow",
    "upload_rows",
]
