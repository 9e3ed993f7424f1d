"""Device, attention implementation and threads."""

import importlib.util

import devices
import gpu
import pytest
from inputs import TrainError


@pytest.mark.parametrize(
    ("has_gpu", "has_bf16", "device"),
    [(False, False, "cpu"), (True, True, "cuda"), (True, False, "cuda without bf16")],
)
def test_the_device_is_a_key_of_precisions(monkeypatch, has_gpu, has_bf16, device):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation
    )
    assert devices.choose_device() == device
    assert device in devices.PRECISIONS


def test_the_cpu_of_a_machine_with_an_unusable_gpu_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "unused_gpu", lambda: "torch cannot use the GPU")
    message = "torch cannot use the GPU, this machine: install a torch wheel"
    with pytest.raises(TrainError, match=message):
        devices.choose_device()


@pytest.mark.parametrize(
    ("capability", "installed", "device", "expected"),
    [
        ((8, 0), True, "cuda", "flash_attention_2"),
        ((9, 0), True, "cuda", "flash_attention_2"),
        ((7, 5), True, "cuda without bf16", "sdpa"),
        ((8, 0), False, "cuda", "sdpa"),
        ((8, 0), True, "cpu", "sdpa"),
    ],
)
def test_auto_is_the_fastest_attention_implementation(
    monkeypatch, capability, installed, device, expected
):
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if installed else None)
    assert devices.choose_attention("auto", device) == expected
    assert devices.choose_attention("eager", device) == "eager"


def test_a_tiny_model_trains_with_one_thread():
    assert devices.choose_threads(570_000, available=8) == 1
    assert devices.choose_threads(3_800_000_000, available=8) == 8
