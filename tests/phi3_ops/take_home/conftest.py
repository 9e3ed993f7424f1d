"""Tiny models to export: one with SmolLM2's kind of tokenizer, and one with Phi-3.5's and LongRoPE."""

from __future__ import annotations

import pytest

from phi3_ops.take_home.source import load_source
from tiny_longrope import build_tiny_longrope


@pytest.fixture(scope="session")
def tiny(tiny_model_dir):
    """The tiny model with a byte-level tokenizer."""
    return load_source(str(tiny_model_dir))


@pytest.fixture(scope="session")
def longrope_folder(tmp_path_factory):
    """The folder of a model with a SentencePiece tokenizer and LongRoPE."""
    return build_tiny_longrope(tmp_path_factory.mktemp("models") / "Tiny-Phi-3.5")


@pytest.fixture(scope="session")
def longrope(longrope_folder):
    return load_source(str(longrope_folder))
