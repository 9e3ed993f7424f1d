"""The environments that Azure builds: Python, torch and its CUDA version, and the base image."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..yaml_files import load_yaml

# Version of torch -> CUDA version of its wheel for Linux on the package index. Source: the requirements
# in the wheels' metadata.
TORCH_CUDA = {"2.10.0": "12.8", "2.13.0": "13.0"}
# Version of vLLM -> version of torch that its wheel needs. Source: the wheel's metadata.
VLLM_TORCH = {"0.19.1": "2.10.0"}
# Azure's machines may have a driver of this branch, which runs CUDA 12 and not CUDA 13. Contract: "CUDA
# Compatibility", minor version compatibility.
OLDEST_DRIVER = 535
NEWEST_CUDA = 12


@dataclass(frozen=True)
class AzureEnvironment:
    """The environment of the training job, of the scoring script or of vLLM's container.

    Attributes:
        name: "training", "serving" or "vllm".
        python: version of Python, such as "3.11".
        torch: version of torch.
        cuda: CUDA version of torch's wheel; "" if it is not known.
        base_image: base image for a size with a GPU.
    """

    name: str
    python: str
    torch: str
    cuda: str
    base_image: str

    @property
    def problem(self) -> str:
        """Why a GPU would not be used, "" if it would be."""
        if not self.cuda:
            return f"the CUDA version of torch {self.torch} is not known"
        if int(self.cuda.partition(".")[0]) > NEWEST_CUDA:
            return f"torch {self.torch} needs CUDA {self.cuda}, which driver {OLDEST_DRIVER} cannot run"
        if f"cuda{self.cuda}" not in self.base_image:
            return f"torch {self.torch} is built for CUDA {self.cuda}, but the image is {self.base_image}"
        return ""


def azure_environments() -> list[AzureEnvironment]:
    """Return the environments with a GPU, as the files of scripts/ describe them."""
    training_image = load_yaml(paths.AZURE / "environment.yml")["image"]
    serving_image = load_yaml(paths.AZURE / "deployment-score.yml")["environment"]["image"]
    return [
        _read("training", paths.TRAINING / "conda.yaml", training_image),
        _read("serving", paths.SERVING / "conda.yaml", serving_image),
        _read_vllm(paths.AZURE / "vllm" / "Dockerfile"),
    ]


def pip_requirements(conda_file: Path) -> list[str]:
    """Return the requirements that a conda file leaves to pip."""
    dependencies: Iterable[Any] = load_yaml(conda_file)["dependencies"]
    return [
        requirement
        for dependency in dependencies
        if isinstance(dependency, dict)
        for requirement in dependency["pip"]
    ]


def _read(name: str, conda_file: Path, image: str) -> AzureEnvironment:
    text = conda_file.read_text(encoding="utf-8")
    python, torch = _pinned(r"- python=", text), _pinned(r"- torch==", text)
    return AzureEnvironment(name, python, torch, TORCH_CUDA.get(torch, ""), image)


def _read_vllm(dockerfile: Path) -> AzureEnvironment:
    text = dockerfile.read_text(encoding="utf-8")
    torch = VLLM_TORCH.get(_pinned("vllm==", text), "")
    image = re.search(r"^FROM (\S+)", text, re.MULTILINE)
    base_image = image.group(1) if image else ""
    return AzureEnvironment(
        "vllm", _pinned("python=", text), torch, TORCH_CUDA.get(torch, ""), base_image
    )


def _pinned(prefix: str, text: str) -> str:
    """Return the version after the first `prefix` outside of comments, "" without one."""
    match = re.search(rf"^[^#\n]*{re.escape(prefix)}([\d.]+)", text, re.MULTILINE)
    return match.group(1) if match else ""
