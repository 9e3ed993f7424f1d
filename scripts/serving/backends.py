"""Chooses what runs a model: OpenVINO on a CPU; transformers on a GPU and where OpenVINO fails.

Environment variables:
    PHI3_ENGINE: auto, openvino or transformers.
    PHI3_PRECISION: precision of the export for OpenVINO: fp32, fp16, int8 or int4.
    PHI3_COMPUTATION: how OpenVINO computes and keeps keys and values: fp32 or bf16.
    PHI3_EXPORT_CACHE: folder for exports; by default the model's folder.
    PHI3_CACHE_MIB: memory for the keys and values of all requests, in MiB.
    PHI3_THREADS: number of threads that OpenVINO uses.
    WORKER_COUNT: number of workers that share the memory and the cores.
    PHI3_EXPECT_GPU, CUDA_VISIBLE_DEVICES: see gpu.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gpu
import machine
from batching import Backend
from model_files import ModelFiles

if TYPE_CHECKING:
    from engine_openvino import OpenVinoBackend
    from engine_transformers import TransformersBackend

log = logging.getLogger("phi3.score")


@dataclass(frozen=True)
class LoadedBackend:
    """A backend with a model in memory.

    Attributes:
        backend: the backend.
        runtime: what runs the model, for people: "OpenVINO, fp32, 1 thread". If transformers is a
            fall-back, it contains the reason.
    """

    backend: Backend
    runtime: str


def load_backend(files: ModelFiles) -> LoadedBackend:
    """Load a model.

    With PHI3_ENGINE=auto, a model that OpenVINO cannot serve is served by transformers. The
    runtime and the log contain the reason.

    Raises:
        ValueError: an environment variable has an invalid value, or this machine has a GPU that torch
            cannot use and PHI3_ENGINE is not openvino.
        Exception: any error of the backend.
    """
    engine = _read_setting("PHI3_ENGINE", ("auto", "openvino", "transformers"))
    precision = _read_setting("PHI3_PRECISION", ("fp32", "fp16", "int8", "int4"))
    computation = _read_setting("PHI3_COMPUTATION", ("fp32", "bf16"))
    machine.check_settings()
    if engine != "openvino":
        _refuse_unused_gpu()
    reason = ""
    if engine == "openvino" or (engine == "auto" and not _has_gpu()):
        try:
            backend = _load_openvino(files, precision, computation)
            details = precision if computation == "fp32" else f"{precision} in {computation}"
            return LoadedBackend(backend, f"OpenVINO, {details}, {_count(backend.threads)}")
        except Exception as error:
            if engine == "openvino":
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            log.warning("using transformers, which is slower than OpenVINO: %s", reason)
            reason = f", because OpenVINO cannot serve this model: {reason}"
    from engine_transformers import TransformersBackend  # importing torch takes seconds

    backend = TransformersBackend(files.model, files.tokenizer)
    return LoadedBackend(backend, f"transformers, {_describe_device(backend)}{reason}")


def _describe_device(backend: TransformersBackend) -> str:
    """Return the precision of a model and what computes it: "float32, 2 threads"."""
    import torch

    precision = str(backend.model.dtype).removeprefix("torch.")
    device = backend.model.device
    if device.type == "cpu":
        return f"{precision}, {_count(torch.get_num_threads())}"
    return f"{precision}, {torch.cuda.get_device_name(device)}"


def _count(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _load_openvino(files: ModelFiles, precision: str, computation: str) -> OpenVinoBackend:
    from engine_openvino import OpenVinoBackend
    from openvino_export import ensure_export

    return OpenVinoBackend(ensure_export(files, precision), computation)


def _refuse_unused_gpu() -> None:
    if not gpu.is_expected():
        return  # importing torch takes seconds
    if reason := gpu.unused_gpu():
        raise ValueError(
            f"{reason}: {gpu.how_to_use_it()}; PHI3_ENGINE=openvino serves on the CPU, too"
        )


def _has_gpu() -> bool:
    if not gpu.has_nvidia_device():
        return False
    import torch

    return torch.cuda.is_available()


def _read_setting(name: str, choices: Sequence[str]) -> str:
    value = os.environ.get(name) or choices[0]
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value}")
    return value
