"""Whether a GPU is left unused."""

import importlib.util

import pytest
import torch
from training_run import TRAINING

SERVING = TRAINING.parent / "serving"

PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Feb 17 22:55:48 UTC 2024"
)
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (builder)"
)


@pytest.fixture(params=[TRAINING, SERVING], ids=["training", "serving"], autouse=True)
def gpu(request):
    """The module of the training, and that of the serving."""
    spec = importlib.util.spec_from_file_location("gpu", request.param / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def machine(monkeypatch, gpu):
    """Return a function that describes the machine: NVIDIA device, and whether torch can use it."""
    for name in (gpu.EXPECT_VARIABLE, gpu.DEVICES_VARIABLE):
        monkeypatch.delenv(name, raising=False)

    def describe(device, usable=False):
        monkeypatch.setattr(gpu, "has_nvidia_device", lambda: device)
        monkeypatch.setattr(gpu, "driver_version", lambda: "535.161.08")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)

    return describe


def test_driver_cuda_and_wheel_are_named(machine, monkeypatch, gpu):
    machine(device=True)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert gpu.unused_gpu() == (
        "torch 2.13.0+cu130 (CUDA 13.0) cannot use this machine's NVIDIA GPU (driver 535.161.08)"
    )
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "(a build without CUDA)" in gpu.unused_gpu()


@pytest.mark.parametrize(
    ("device", "usable", "expected", "visible", "refused"),
    [
        (False, False, "", None, False),
        (False, False, "false", None, False),
        (False, False, "true", None, True),
        (True, True, "true", None, False),
        (True, False, "", "0", True),
        (True, False, "true", "", False),
        (True, False, "", "-1", False),
    ],
    ids=["none", "no", "hidden", "usable", "unusable", "cpu wanted", "minus one"],
)
def test_when_the_cpu_is_refused(
    machine, monkeypatch, device, usable, expected, visible, refused, gpu
):
    machine(device, usable)
    monkeypatch.setenv(gpu.EXPECT_VARIABLE, expected)
    if visible is not None:
        monkeypatch.setenv(gpu.DEVICES_VARIABLE, visible)
    assert bool(gpu.unused_gpu()) is refused
    assert gpu.is_expected() is (device or expected == "true")


@pytest.mark.parametrize(
    ("text", "version"), [(PROPRIETARY, "535.161.08"), (OPEN, "570.86.10"), ("odd", "unknown")]
)
def test_the_driver(tmp_path, text, version, gpu):
    file = tmp_path / "version"
    file.write_text(f"{text}\nGCC version:  gcc 12.3.0\n")
    assert gpu.driver_version(file) == version
    assert gpu.driver_version(tmp_path / "missing") == "unknown"


def test_training_and_serving_have_the_same_file(gpu):
    serving = TRAINING.parent / "serving" / "gpu.py"
    assert serving.read_text(encoding="utf-8") == (TRAINING / "gpu.py").read_text(encoding="utf-8")
