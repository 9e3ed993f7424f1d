"""OpenVINO, imported in a way that it does not report its use to Intel.

By default, importing OpenVINO sends an event. Without its package for that, it sends none.
"""

import functools
import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import op  # noqa: E402
from openvino import opset13 as opset  # noqa: E402

Constant, PagedAttention = op.Constant, op._PagedAttentionExtension


@functools.cache
def core() -> openvino.Core:
    """Return OpenVINO's core, of which the process has one, until it ends.

    Where the processor has AMX, the plugin that belongs to a core replaces the stack on which the thread
    handles signals, and frees that memory with the core. If a model goes in another order or in another
    thread than it came, the thread keeps a stack that is freed, and the next signal ends the process
    (openvino pull request 11894, "Add signal stack management for AMX in linux python API").
    """
    return openvino.Core()


__all__ = ["Constant", "PagedAttention", "core", "openvino", "opset"]
