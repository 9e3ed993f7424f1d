"""Which type of numbers llama.cpp gives each matrix of a Phi-3 in a quantization such as q4_k_m.

Source: `llama_tensor_get_type` in llama.cpp's `llama-quant.cpp`, for the architecture `phi3` and without
an importance matrix. The names of the types are those of `gguf.GGMLQuantizationType`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .formats import FLOATS

# Quantization -> type of most matrices.
_USUAL = {
    "q8_0": "Q8_0", "q6_k": "Q6_K", "q5_k_m": "Q5_K", "q5_k_s": "Q5_K", "q5_1": "Q5_1", "q5_0": "Q5_0",
    "q4_k_m": "Q4_K", "q4_k_s": "Q4_K", "q4_1": "Q4_1", "q4_0": "Q4_0", "iq4_nl": "IQ4_NL",
    "iq4_xs": "IQ4_XS", "q3_k_l": "Q3_K", "q3_k_m": "Q3_K", "q3_k_s": "Q3_K", "q2_k": "Q2_K",
}  # fmt: skip
# Types with blocks of 256 numbers -> type for matrices whose rows are not multiples of it.
_FALLBACKS = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL",
}  # fmt: skip
_MANY_GROUPS = 4  # query heads per key-value head, from which on the values get more bits
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


@dataclass(frozen=True)
class Mixture:
    """The types of the matrices of a model in one quantization.

    Attributes:
        quantization: the quantization.
        layers: number of layers.
        is_tied: whether the embedding is also the output matrix.
        groups: number of query heads per key-value head.
        block_size: function that returns the number of values in a block of a type.
    """

    quantization: str
    layers: int
    is_tied: bool
    groups: int
    block_size: Callable[[str], int]

    def type_of(self, name: str, shape: tuple[int, ...]) -> str:
        """Return the type of a tensor.

        Args:
            name: name of the tensor in a GGUF file.
            shape: its shape, rows first.
        """
        if len(shape) < 2:
            return "F32"
        if self.quantization in FLOATS:
            return self.quantization.upper()
        columns = shape[-1]
        wanted = self._wanted(name, columns)
        if columns % self.block_size(wanted):
            wanted = _FALLBACKS.get(wanted, "F16")
        return "F16" if columns % self.block_size(wanted) else wanted

    def is_fallback(self, name: str, shape: tuple[int, ...]) -> bool:
        """Return whether a matrix has another type than usual because of the length of its rows."""
        if len(shape) < 2 or self.quantization in FLOATS:
            return False
        return bool(shape[-1] % self.block_size(_USUAL[self.quantization]))

    def _wanted(self, name: str, columns: int) -> str:
        """Return the type of a matrix whose rows have a suitable length."""
        usual = _USUAL[self.quantization]
        if name == "output.weight" or (self.is_tied and name == "token_embd.weight"):
            if usual == "Q8_0" or columns % self.block_size(usual):
                return "Q8_0"
            return "Q6_K"
        match = _LAYER.fullmatch(name)
        if match is None:
            return usual
        layer = int(match[1])
        if match[2] == "attn_qkv":
            return self._values_type(layer, usual)
        if match[2] == "ffn_down":
            return self._down_type(layer, usual)
        if match[2] == "attn_output":
            return {"q2_k": "Q3_K", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K"}.get(
                self.quantization, usual
            )
        return usual

    def _values_type(self, layer: int, usual: str) -> str:
        """Return the type of the matrix of queries, keys and values."""
        name, has_many_groups = self.quantization, self.groups >= _MANY_GROUPS
        if name == "q2_k":
            return "Q4_K" if has_many_groups else "Q3_K"
        if name == "q3_k_m":
            return "Q5_K" if layer < 2 else "Q4_K"
        if name == "q3_k_l" or (name in ("iq4_nl", "iq4_xs") and has_many_groups):
            return "Q5_K"
        if name in ("q4_k_m", "q5_k_m") and self._gets_more_bits(layer):
            return "Q6_K"
        return "Q5_K" if name == "q4_k_s" and layer < 4 else usual

    def _down_type(self, layer: int, usual: str) -> str:
        """Return the type of the last matrix of a feed-forward layer."""
        name, eighth = self.quantization, self.layers // 8
        if name == "q2_k":
            return "Q3_K"
        if name == "q3_k_m":
            return "Q5_K" if layer < self.layers // 16 else "Q4_K"
        if name == "q3_k_l" or (name in ("iq4_nl", "iq4_xs", "q4_k_s") and layer < eighth):
            return "Q5_K"
        if name in ("q4_k_m", "q5_k_m") and self._gets_more_bits(layer):
            return "Q6_K"
        return usual

    def _gets_more_bits(self, layer: int) -> bool:
        eighth = self.layers // 8
        return layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2
