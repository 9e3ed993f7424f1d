"""Refuse to compute on the CPU of a machine whose GPU torch cannot use.

scripts/training and scripts/serving have the same file, because each of the two folders is uploaded
alone; a test compares them.

Environment variables:
    PHI3_EXPECT_GPU: `true` on a machine size with a GPU, which is paid for.
    CUDA_VISIBLE_DEVICES: an empty value asks for the CPU. Source: "CUDA C++ Programming Guide".
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

EXPECT_VARIABLE = "PHI3_EXPECT_GPU"
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
DRIVER_FILE = Path("/proc/driver/nvidia/version")
DEVICE_FILE = Path("/dev/nvidiactl")


def has_nvidia_device() -> bool:
    """Return whether this machine has an NVIDIA GPU, whether or not torch can use it."""
    return DEVICE_FILE.exists() or shutil.which("nvidia-smi") is not None


def is_expected() -> bool:
    """Return whether this machine has an NVIDIA GPU, or its size should have one."""
    return has_nvidia_device() or _size_has_gpu()


def unused_gpu() -> str:
    """Return why torch does not use the GPU of this machine, "" if there is no GPU to use."""
    import torch

    visible = os.environ.get(DEVICES_VARIABLE)
    if torch.cuda.is_available() or (visible is not None and visible.strip() in ("", "-1")):
        return ""
    wheel = f"torch {torch.__version__} ({_cuda_of(torch)})"
    if has_nvidia_device():
        return f"{wheel} cannot use this machine's NVIDIA GPU (driver {driver_version()})"
    if _size_has_gpu():
        return (
            f"{wheel} sees no NVIDIA GPU, although {EXPECT_VARIABLE} says that this machine has one"
        )
    return ""


def how_to_use_it() -> str:
    """Return what to do about an unused GPU."""
    return (
        "install a torch wheel for a CUDA version that the driver supports, or set "
        f"{DEVICES_VARIABLE} to an empty value to use the CPU"
    )


def driver_version(file: Path = DRIVER_FILE) -> str:
    """Return the version of the NVIDIA driver, such as "535.161.08", or "unknown"."""
    try:
        first_line = file.read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return "unknown"
    match = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", first_line)
    return match.group() if match else "unknown"


def _size_has_gpu() -> bool:
    return os.environ.get(EXPECT_VARIABLE, "").lower() in ("1", "true")


def _cuda_of(torch: object) -> str:
    cuda = getattr(getattr(torch, "version", None), "cuda", None)
    return f"CUDA {cuda}" if cuda else "a build without CUDA"
