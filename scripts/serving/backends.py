"""Which backend runs a model: ONNX Runtime on a CPU, transformers on a GPU or where all else fails.

Settings, all environment variables: PHI3_ENGINE (auto, onnx, transformers), PHI3_PRECISION of the
export (fp32, int4), PHI3_ONNX_CACHE (where exports go, by default beside the model),
PHI3_CACHE_MIB (memory for all requests' keys and values) and PHI3_THREADS (of ONNX Runtime).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence

from engine import Backend
from model_files import ModelFiles

log = logging.getLogger("phi3.score")


def load_backend(files: ModelFiles) -> Backend:
    """Load a model; with `auto` whatever keeps ONNX Runtime from it is one line in the log.

    Raises ValueError for a wrong setting, and what the backend raises.
    """
    engine = _setting("PHI3_ENGINE", ("auto", "onnx", "transformers"))
    precision = _setting("PHI3_PRECISION", ("fp32", "int4"))
    if engine == "onnx" or (engine == "auto" and not _has_gpu()):
        try:
            return _onnx(files, precision)
        except Exception as error:
            if engine == "onnx":
                raise
            line = (str(error).splitlines() or [type(error).__name__])[0]
            log.warning("served by transformers, which is slower, not by ONNX Runtime: %s", line)
    from engine_transformers import TransformersBackend  # torch takes seconds: not before needed

    return TransformersBackend(files.model, files.tokenizer)


def _onnx(files: ModelFiles, precision: str) -> Backend:
    from engine_onnx import OnnxBackend
    from onnx_export import exported

    return OnnxBackend(exported(files, precision))


def _has_gpu() -> bool:
    if not shutil.which("nvidia-smi") and not os.path.exists("/dev/nvidiactl"):
        return False
    import torch

    return torch.cuda.is_available()


def _setting(name: str, choices: Sequence[str]) -> str:
    value = os.environ.get(name) or choices[0]
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value}")
    return value
