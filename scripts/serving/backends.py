"""Chooses what runs a model: ONNX Runtime on a CPU; transformers on a GPU and where ONNX Runtime fails.

Environment variables:
    PHI3_ENGINE: auto, onnx or transformers.
    PHI3_PRECISION: precision of the export for ONNX Runtime, fp32 or int4.
    PHI3_ONNX_CACHE: folder for exports; by default the model's folder.
    PHI3_CACHE_MIB: memory for the keys and values of all requests, in MiB.
    PHI3_THREADS: number of threads that ONNX Runtime uses.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence

from batching import Backend
from model_files import ModelFiles

log = logging.getLogger("phi3.score")


def load_backend(files: ModelFiles) -> Backend:
    """Load a model.

    With PHI3_ENGINE=auto, a model that ONNX Runtime cannot serve is served by transformers, and the
    log says why in one line.

    Raises:
        ValueError: an environment variable has an invalid value.
        Exception: any error of the backend.
    """
    engine = _read_setting("PHI3_ENGINE", ("auto", "onnx", "transformers"))
    precision = _read_setting("PHI3_PRECISION", ("fp32", "int4"))
    if engine == "onnx" or (engine == "auto" and not _has_gpu()):
        try:
            return _load_onnx(files, precision)
        except Exception as error:
            if engine == "onnx":
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            log.warning("using transformers, which is slower than ONNX Runtime: %s", reason)
    from engine_transformers import TransformersBackend  # importing torch takes seconds

    return TransformersBackend(files.model, files.tokenizer)


def _load_onnx(files: ModelFiles, precision: str) -> Backend:
    from engine_onnx import OnnxBackend
    from onnx_export import ensure_export

    return OnnxBackend(ensure_export(files, precision))


def _has_gpu() -> bool:
    if not shutil.which("nvidia-smi") and not os.path.exists("/dev/nvidiactl"):
        return False
    import torch

    return torch.cuda.is_available()


def _read_setting(name: str, choices: Sequence[str]) -> str:
    value = os.environ.get(name) or choices[0]
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value}")
    return value
