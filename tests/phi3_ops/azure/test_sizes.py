"""Which VM sizes have NVIDIA GPUs."""

from __future__ import annotations

import pytest
from fake_azure.workspace import SIZES

from phi3_ops.azure.sizes import has_gpu


@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_of_the_fake(size):
    assert has_gpu(size) is bool(SIZES[size][2])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("standard_nc6s_v3", True),
        ("Standard_ND96isr_H100_v5", True),
        ("Standard_ND96isr_MI300X_v5", False),
        ("Standard_NV8as_v4", False),
        ("Standard_NP10s", False),
        ("Standard_D4s_v5", False),
    ],
)
def test_families_and_makers(size, expected):
    assert has_gpu(size) is expected
