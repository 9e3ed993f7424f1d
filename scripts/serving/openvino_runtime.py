"""OpenVINO, imported in a way that it does not report its use to Intel.

By default, importing OpenVINO sends an event. Without its package for that, it sends none.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import op  # noqa: E402
from openvino import opset13 as opset  # noqa: E402

Constant, PagedAttention = op.Constant, op._PagedAttentionExtension

__all__ = ["Constant", "PagedAttention", "openvino", "opset"]
