"""The models with a short name."""

from __future__ import annotations

import re

from phi3_ops.models.catalog import SHORT_NAMES


def test_every_model_is_pinned():
    for name, model in SHORT_NAMES.items():
        assert name == name.lower()
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
        assert model.requirement == f"{model.distribution}=={model.version}"
        assert model.version in model.source
