"""Flows in a Foundry project: upload, check, pull, promote behind a gate. Export of flows as code.

It may import `deploy`, `doctor`, `comparison` and every room below them.
"""

from __future__ import annotations

from .check import check_flow
from .connection_fields import local_connection, shared_connection
from .export import export_flow
from .pf_client import foundry_errors
from .project import FoundryProject
from .promote import Gate, gate_reasons, judge_gate, project_for_gate, refuse_unfit_version
from .pull import diff_flow, pull_flow
from .record import record_flow
from .retirement import refuse_after_retirement, retirement_notice
from .stage import display_name, require_locked, stage_flow, staged_files, staged_flow
from .upload import flow_rows, plan_upload

__all__ = [
    "FoundryProject",
    "Gate",
    "check_flow",
    "diff_flow",
    "display_name",
    "export_flow",
    "flow_rows",
    "foundry_errors",
    "gate_reasons",
    "judge_gate",
    "local_connection",
    "plan_upload",
    "project_for_gate",
    "pull_flow",
    "record_flow",
    "refuse_after_retirement",
    "refuse_unfit_version",
    "require_locked",
    "retirement_notice",
    "shared_connection",
    "stage_flow",
    "staged_files",
    "staged_flow",
]
