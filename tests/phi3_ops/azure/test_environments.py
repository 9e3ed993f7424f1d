"""The environments that Azure builds have a torch that uses the GPU of their machines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from phi3_ops import paths
from phi3_ops.azure.environments import azure_environments, pip_requirements

FOLDERS = {"training": paths.TRAINING, "serving": paths.SERVING}
VLLM = re.search("vllm==[0-9.]+", (paths.AZURE / "vllm" / "Dockerfile").read_text()).group()
ENVIRONMENTS = {environment.name: environment for environment in azure_environments()}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_torch_uses_the_gpu(name):
    environment = ENVIRONMENTS[name]
    assert environment.problem == ""
    assert environment.python == ("3.12" if name == "vllm" else "3.11")
    assert len({environment.torch for environment in ENVIRONMENTS.values()}) == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"cuda": "13.0"}, "needs CUDA 13.0, which driver 535 cannot run"),
        ({"cuda": "12.6"}, "is built for CUDA 12.6, but the image is mcr"),
        ({"cuda": ""}, "is not known"),
    ],
)
def test_problems(changes, problem):
    assert problem in replace(ENVIRONMENTS["training"], **changes).problem


def test_no_image_comes_from_docker_hub():
    """Docker Hub limits anonymous pulls, and Azure builds these images without an account."""
    lines = [
        line
        for dockerfile in paths.AZURE.glob("*/Dockerfile")
        for line in dockerfile.read_text(encoding="utf-8").splitlines()
        if line.startswith("FROM ")
    ]
    assert len(lines) == 3
    assert all(line.startswith("FROM mcr.microsoft.com/") for line in lines)


@pytest.mark.slow  # pip reads the metadata of more than a hundred packages
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_pip_resolves_the_packages_to_a_torch_of_that_cuda_version(name, tmp_path):
    environment, report = ENVIRONMENTS[name], tmp_path / "report.json"
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--quiet"]
    target = ["--python-version", environment.python, "--target", tmp_path / "target"]
    requirements = [VLLM]
    if name in FOLDERS:
        requirements = pip_requirements(FOLDERS[name] / "conda.yaml")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, *target, "--report", report]
        + [requirement.split("#")[0].strip() for requirement in requirements],
        check=True,
        timeout=1200,
    )
    packages = {
        package["metadata"]["name"]: package["metadata"]["version"]
        for package in json.loads(report.read_text(encoding="utf-8"))["install"]
    }
    assert packages["torch"] == environment.torch
    assert packages["nvidia-cuda-runtime-cu12"].startswith(f"{environment.cuda}.")
