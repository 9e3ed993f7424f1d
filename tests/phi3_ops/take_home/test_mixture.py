"""The types of the matrices, as llama.cpp chooses them."""

from __future__ import annotations

import pytest

from phi3_ops.take_home.formats import LLAMA_FILE_TYPES
from phi3_ops.take_home.mixture import Mixture
from phi3_ops.take_home.quantizer import block_size


def types_of(quantization, *, layers=32, is_tied=False, groups=1, columns=3072):
    """Return the number of matrices of each type in a model of Phi-3-mini's shape."""
    mixture = Mixture(quantization, layers, is_tied, groups, block_size)
    counts: dict[str, int] = {}
    names = ["token_embd.weight", *([] if is_tied else ["output.weight"])]
    for layer in range(layers):
        names += [f"blk.{layer}.{part}.weight" for part in PARTS]
    for name in names:
        kind = mixture.type_of(name, (64, columns))
        counts[kind] = counts.get(kind, 0) + 1
    return counts


PARTS = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


def test_q4_k_m_of_phi3_mini():
    """Every third layer, and the first and last eighth, get more bits, and so does the output matrix."""
    assert types_of("q4_k_m") == {"Q4_K": 97, "Q6_K": 33}


@pytest.mark.parametrize(
    ("quantization", "counts"),
    [
        ("q8_0", {"Q8_0": 130}),
        ("q6_k", {"Q6_K": 130}),
        ("q5_k_m", {"Q5_K": 97, "Q6_K": 33}),
        ("q4_k_s", {"Q4_K": 121, "Q5_K": 8, "Q6_K": 1}),
        ("q4_0", {"Q4_0": 129, "Q6_K": 1}),
        ("iq4_xs", {"IQ4_XS": 125, "Q5_K": 4, "Q6_K": 1}),
        ("q3_k_l", {"Q3_K": 33, "Q5_K": 96, "Q6_K": 1}),
        ("q3_k_m", {"Q3_K": 33, "Q4_K": 92, "Q5_K": 4, "Q6_K": 1}),
        ("q3_k_s", {"Q3_K": 129, "Q6_K": 1}),
        ("q2_k", {"Q2_K": 33, "Q3_K": 96, "Q6_K": 1}),
    ],
)
def test_other_quantizations(quantization, counts):
    assert types_of(quantization) == counts


def test_many_groups_give_the_values_more_bits():
    assert types_of("q2_k", groups=4)["Q4_K"] == 32
    assert types_of("iq4_xs", groups=4)["Q5_K"] == 32 + 4


def test_a_tied_embedding_is_quantized_as_the_output_matrix():
    assert types_of("q4_k_s", is_tied=True) == {"Q4_K": 120, "Q5_K": 8, "Q6_K": 1}


@pytest.mark.parametrize("quantization", LLAMA_FILE_TYPES)
def test_rows_that_are_no_multiple_of_256(quantization):
    types = types_of(quantization, columns=576)
    assert all(576 % block_size(kind) == 0 for kind in types) and "F16" not in types
    mixture = Mixture(quantization, 1, True, 1, block_size)
    is_k = block_size(mixture.type_of("blk.0.ffn_up.weight", (1, 256))) == 256
    assert mixture.is_fallback("blk.0.ffn_up.weight", (1, 576)) == is_k


def test_rows_that_are_no_multiple_of_32():
    mixture = Mixture("q8_0", 1, True, 1, block_size)
    assert mixture.type_of("blk.0.ffn_up.weight", (8, 33)) == "F16"


def test_vectors_and_floats():
    assert Mixture("q4_0", 1, True, 1, block_size).type_of("output_norm.weight", (64,)) == "F32"
    floats = Mixture("bf16", 1, True, 1, block_size)
    assert floats.type_of("token_embd.weight", (8, 64)) == "BF16"
    assert not floats.is_fallback("token_embd.weight", (8, 63))
