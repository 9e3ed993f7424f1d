"""Flows as files: their definition, locked versions, image build context and tool wheel.

It may import `pf` and `data`.
"""

from __future__ import annotations

from .definition import FlowDefinition
from .image import (
    EXCLUDED_FROM_IMAGE,
    IMAGE_FOLDER,
    add_image_files,
    build_image_context,
    copy_resolved_flow,
    refuse_secrets,
)
from .lock import (
    LOCK_CHANGED,
    LOCK_FILE,
    NEVER_UPLOADED,
    NOT_LOCKED,
    PACKAGE,
    TEXT_PROBE_BYTES,
    FlowState,
    content_hash,
    copy_flow,
    flow_files,
    flow_states,
    lock_flows,
    read_lock,
    refuse_changed_flows,
    save_lock,
)
from .wheel import build_tool_wheel

__all__ = [
    "EXCLUDED_FROM_IMAGE",
    "FlowDefinition",
    "FlowState",
    "IMAGE_FOLDER",
    "LOCK_CHANGED",
    "LOCK_FILE",
    "NEVER_UPLOADED",
    "NOT_LOCKED",
    "PACKAGE",
    "TEXT_PROBE_BYTES",
    "add_image_files",
    "build_image_context",
    "build_tool_wheel",
    "content_hash",
    "copy_flow",
    "copy_resolved_flow",
    "flow_files",
    "flow_states",
    "lock_flows",
    "read_lock",
    "refuse_changed_flows",
    "refuse_secrets",
    "save_lock",
]
