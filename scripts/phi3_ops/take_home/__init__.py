"""Models to take home: GGUF for llama.cpp, LM Studio and Ollama, and ONNX for Foundry Local.

It may import `training`, `runs`, `chat` and the rooms below them.
"""

from __future__ import annotations

from .evaluation import EvaluatedModel, check_evaluation_of_export, evaluate_export
from .export import ExportedModel, export_model

__all__ = [
    "EvaluatedModel",
    "ExportedModel",
    "check_evaluation_of_export",
    "evaluate_export",
    "export_model",
]
