"""What the name of a VM size says about its machines."""

from __future__ import annotations

import re

# NC, ND and NV are the families with NVIDIA GPUs, except for two series with GPUs of AMD. Contract: "GPU
# accelerated virtual machine sizes".
_NVIDIA = re.compile(r"standard_n[cdv]\d", re.IGNORECASE)
_AMD = re.compile(r"standard_nv\d+as_v4$|_mi300x_", re.IGNORECASE)


# The base image of machines without a GPU.
CPU_IMAGE = "mcr.microsoft.com/azureml/openmpi5.0-ubuntu24.04:latest"


def has_gpu(size: str) -> bool:
    """Return whether a VM size, such as Standard_NC24ads_A100_v4, has NVIDIA GPUs."""
    return bool(_NVIDIA.match(size)) and not _AMD.search(size)
