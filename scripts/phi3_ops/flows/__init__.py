"""Flows as files: definition, content, lock, image build context, search for secrets, and tool wheel.

It may import `pf` and `data`.
"""

from __future__ import annotations

from .content import content_hash, copy_flow, flow_files, is_text
from .dag_file import read_dag_file, write_dag_file
from .definition import FlowDefinition
from .image import IMAGE_FOLDER, add_image_files, build_image_context, copy_resolved_flow
from .lock import (
    LOCK_CHANGED,
    LOCK_FILE,
    NOT_LOCKED,
    FlowState,
    flow_states,
    lock_flows,
    read_lock,
    refuse_changed_flows,
    save_lock,
)
from .secrets import refuse_secrets
from .wheel import build_tool_wheel

__all__ = [
    "FlowDefinition",
    "FlowState",
    "IMAGE_FOLDER",
    "LOCK_CHANGED",
    "LOCK_FILE",
    "NOT_LOCKED",
    "add_image_files",
    "build_image_context",
    "build_tool_wheel",
    "content_hash",
    "copy_flow",
    "copy_resolved_flow",
    "flow_files",
    "flow_states",
    "is_text",
    "lock_flows",
    "read_dag_file",
    "read_lock",
    "refuse_changed_flows",
    "refuse_secrets",
    "save_lock",
    "write_dag_file",
]
