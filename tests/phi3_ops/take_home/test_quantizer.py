"""Quantization by llama.cpp's code, against the package gguf's in NumPy."""

from __future__ import annotations

import builtins
import ctypes

import gguf
import numpy as np
import pytest

from phi3_ops.errors import OpsError
from phi3_ops.take_home import quantizer
from phi3_ops.take_home.formats import LLAMA_FILE_TYPES
from phi3_ops.take_home.mixture import _USUAL
from phi3_ops.take_home.quantizer import quantize_matrix

MATRIX = np.random.default_rng(0).normal(size=(700, 512)).astype(np.float32)


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_1", "Q4_0"])
def test_it_equals_the_package_gguf(kind):
    expected = gguf.quantize(MATRIX, gguf.GGMLQuantizationType[kind])
    assert np.array_equal(quantize_matrix(MATRIX, kind), expected)


@pytest.mark.parametrize("quantization", LLAMA_FILE_TYPES)
def test_every_type_can_be_read_back(quantization, monkeypatch):
    monkeypatch.setattr(quantizer, "_VALUES_PER_TASK", 10_000)  # several threads
    kind = gguf.GGMLQuantizationType[_USUAL[quantization]]
    restored = gguf.dequantize(quantize_matrix(MATRIX, kind.name), kind)
    error = np.sqrt(np.mean((restored - MATRIX) ** 2))
    assert error < (0.4 if kind.name == "Q2_K" else 0.2)


@pytest.fixture
def fresh():
    quantizer._library.cache_clear()
    yield
    quantizer._library.cache_clear()


def test_the_package_is_missing(fresh, monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("xllamacpp"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        OpsError, match=r"xllamacpp, which is not installed. Run: pip install.*take"
    ):
        quantize_matrix(MATRIX, "Q4_K")


def test_the_package_hides_the_function(fresh, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    with pytest.raises(OpsError, match="does not offer llama.cpp's quantization"):
        quantize_matrix(MATRIX, "Q4_K")
