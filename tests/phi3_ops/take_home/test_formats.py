"""The formats and their quantizations."""

from __future__ import annotations

import pytest

from phi3_ops.cli import export
from phi3_ops.errors import OpsError
from phi3_ops.take_home.formats import FORMATS, LLAMA_FILE_TYPES, choose_quantizations
from phi3_ops.take_home.mixture import _USUAL


def test_the_command_offers_every_format():
    assert tuple(FORMATS) == export.FORMATS


def test_every_quantization_has_a_mixture():
    assert _USUAL.keys() == LLAMA_FILE_TYPES.keys()


def test_the_usual_quantization():
    assert choose_quantizations(FORMATS["ollama"], ()) == ("q4_k_m",)
    assert choose_quantizations(FORMATS["onnx"], ()) == ("int4",)


def test_repetitions_are_dropped():
    assert choose_quantizations(FORMATS["gguf"], ("f16", "q8_0", "f16")) == ("f16", "q8_0")


@pytest.mark.parametrize(
    ("target", "names", "message"),
    [
        ("gguf", ("iq2_xs",), "iq2_xs needs an importance matrix. Use iq4_xs"),
        ("gguf", ("int4",), "gguf has no quantization 'int4'. Use one of f32, f16"),
        ("onnx", ("q4_k_m",), "onnx has no quantization 'q4_k_m'. Use one of int4, fp32"),
        ("foundry-local", ("int4", "fp32"), "contains one model. Give one quantization"),
    ],
)
def test_quantizations_that_a_format_lacks(target, names, message):
    with pytest.raises(OpsError, match=message):
        choose_quantizations(FORMATS[target], names)
