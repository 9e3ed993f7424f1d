"""Builds the graph of a Phi-3 for OpenVINO from the files that `openvino_export` writes.

The graph's attention (PagedAttention) reads and writes keys and values in blocks of memory that the
caller owns. The new tokens of all rows are one sequence, so rows of different lengths need no padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from architecture import EMBEDDINGS, HEAD, WEIGHTS, Architecture
from openvino_runtime import Constant, PagedAttention
from openvino_runtime import openvino as ov
from openvino_runtime import opset as ops
from quantization import Quantized


def build_graph(folder: Path) -> tuple[ov.Model, list[np.ndarray]]:
    """Return the graph of an export, and its weights, which are mapped into memory and not read.

    The graph only refers to the weights: they must exist as long as the graph and all that is
    compiled from it.

    Inputs, for T new tokens of R rows:
        input_ids: (T), the new tokens of all rows, one row after the other.
        cosines, sines: (T, 1, 1, rotated values), of the tokens' positions.
        last_tokens: (R), index of each row's last token in input_ids.
        past_lens: (R), number of tokens that each row has in its blocks already.
        subsequence_begins: (R + 1), index of each row's first token in input_ids, and T.
        block_indices: the blocks of all rows, one row after the other.
        block_indices_begins: (R + 1), index of each row's first block in block_indices.
        max_context_len: length of the longest row after this pass.
        key_cache.N, value_cache.N: the blocks of layer N.

    Output: logits, (R, vocabulary).
    """
    builder = _Builder(folder)
    return builder.build(), builder.weights


class _Builder:
    """Builds the graph of one export.

    Attributes:
        weights: arrays whose memory the graph refers to.
    """

    def __init__(self, folder: Path):
        self._folder = folder / WEIGHTS
        self._sizes = Architecture.read(folder)
        self._inputs: list[Any] = []
        self.weights: list[np.ndarray] = []

    def build(self) -> ov.Model:
        sizes = self._sizes
        input_ids = self._input("input_ids", ov.Type.i64, [-1])
        rotation = [-1, 1, 1, 2 * len(sizes.frequencies)]
        self._cosines = self._input("cosines", ov.Type.f32, rotation)
        self._sines = self._input("sines", ov.Type.f32, rotation)
        self._last_tokens = self._input("last_tokens", ov.Type.i64, [-1])
        names = ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins")
        self._rows = [self._input(name, ov.Type.i32, [-1]) for name in names]
        self._longest = self._input("max_context_len", ov.Type.i32, [])
        embeddings = self._matrix(EMBEDDINGS)
        hidden = ops.unsqueeze(ops.gather(embeddings, input_ids, _integers(0)), _integers(1))
        for layer in range(sizes.layers):
            hidden = self._layer(hidden, layer)
        hidden = self._norm(hidden, "model.norm")
        has_head = any(self._folder.glob(f"{HEAD}.*"))
        head = self._matrix(HEAD) if has_head else embeddings
        logits = ops.squeeze(ops.matmul(hidden, head, False, True), _integers(1))
        result = ops.result(logits)
        result.output(0).set_names({"logits"})
        return ov.Model([result], self._inputs, "phi3")

    def _layer(self, hidden: Any, layer: int) -> Any:
        name = f"model.layers.{layer}"
        normed = self._norm(hidden, f"{name}.input_layernorm")
        projected = _split(
            self._linear(normed, f"{name}.self_attn.qkv_proj"), 2, self._sizes.projections
        )
        attended = self._attention(*projected, layer)
        if layer == self._sizes.layers - 1:  # all other tokens only give it keys and values
            hidden, attended = (
                ops.gather(values, self._last_tokens, _integers(0)) for values in (hidden, attended)
            )
        hidden = ops.add(hidden, self._linear(attended, f"{name}.self_attn.o_proj"))
        normed = self._norm(hidden, f"{name}.post_attention_layernorm")
        gate, up = (self._linear(normed, f"{name}.mlp.{part}_proj") for part in ("gate", "up"))
        gated = ops.multiply(ops.swish(gate), up)
        return ops.add(hidden, self._linear(gated, f"{name}.mlp.down_proj"))

    def _attention(self, query: Any, key: Any, value: Any, layer: int) -> Any:
        """Return the attention's output, (T, 1, size), for projected queries, keys and values."""
        sizes = self._sizes
        cache = [
            self._input(f"{kind}_cache.{layer}", ov.Type.dynamic, ov.PartialShape.dynamic(4))
            for kind in ("key", "value")
        ]
        inputs = [
            self._rotate(query, sizes.heads),
            self._rotate(key, sizes.key_value_heads),
            ops.reshape(value, _integers(-1, sizes.key_value_heads * sizes.head_size), False),
            *cache,
            *self._rows,
            ops.constant(np.float32(sizes.head_size**-0.5)),
            ops.constant(np.int32(sizes.sliding_window)),
            ops.constant(np.zeros(0, np.float32)),  # slopes of ALiBi
            self._longest,
            *_unused_inputs(),
        ]
        attention = PagedAttention([_output(node) for node in inputs])
        # The compiler derives the shape and the type of the blocks from these.
        info = attention.get_rt_info()
        info["num_k_heads"] = info["num_v_heads"] = sizes.key_value_heads
        info["k_head_size"] = info["v_head_size"] = sizes.head_size
        return ops.unsqueeze(attention.output(0), _integers(1))

    def _rotate(self, projected: Any, heads: int) -> Any:
        """Return queries or keys with their positions, (T, heads * head size)."""
        sizes = self._sizes
        half = len(sizes.frequencies)
        split_heads = ops.reshape(projected, _integers(0, 0, heads, sizes.head_size), True)
        values = ops.transpose(split_heads, _integers(0, 2, 1, 3))
        rest = sizes.head_size - 2 * half
        rotated, *kept = _split(values, 3, [2 * half, rest]) if rest else [values]
        first, second = _split(rotated, 3, [half, half])
        minus_one = ops.constant(np.full((1, 1, 1, 1), -1, np.float32))
        turned = ops.concat([ops.multiply(second, minus_one), first], -1)
        rotated = ops.add(ops.multiply(rotated, self._cosines), ops.multiply(turned, self._sines))
        values = ops.concat([rotated, *kept], -1) if kept else rotated
        joined = ops.transpose(values, _integers(0, 2, 1, 3))
        return ops.reshape(joined, _integers(-1, heads * sizes.head_size), False)

    def _norm(self, values: Any, name: str) -> Any:
        """Return the RMS norm of each token. The compiler recognises it by these nodes."""
        weight = ops.constant(np.load(self._folder / f"{name}.npy").reshape(1, 1, -1))
        squares = ops.power(values, ops.constant(np.full((1, 1, 1), 2, np.float32)))
        mean = ops.reduce_mean(squares, ops.constant(np.array([-1])), True)
        epsilon = ops.constant(np.full((1, 1, 1), self._sizes.epsilon, np.float32))
        one = ops.constant(np.ones((1, 1, 1), np.float32))
        inverse = ops.divide(one, ops.sqrt(ops.add(mean, epsilon)))
        return ops.multiply(weight, ops.multiply(values, inverse))

    def _linear(self, values: Any, name: str) -> Any:
        return ops.matmul(values, self._matrix(name), False, True)

    def _matrix(self, name: str) -> Any:
        """Return the node of a matrix of (outputs, inputs), as float32."""
        path = self._folder / f"{name}.npy"
        if path.exists():
            floats = np.load(path, mmap_mode="c")
            if floats.dtype == np.float32:
                return self._constant(floats, list(floats.shape), ov.Type.f32)
            halves = ops.convert(self._constant(floats, list(floats.shape), ov.Type.f16), "f32")
            halves.get_rt_info()["decompression_0"] = True  # the compiler keeps float16 in memory
            return halves
        matrix = Quantized.read(self._folder, name)
        kind = ov.Type.u4 if matrix.bits == 4 else ov.Type.u8
        outputs, groups, _ = matrix.scales.shape
        size = matrix.values.shape[-1] * 8 // matrix.bits
        values = self._constant(matrix.values, [outputs, groups, size], kind)
        zeros = self._constant(matrix.zeros, [outputs, groups, 1], kind)
        steps = ops.subtract(ops.convert(values, "f16"), ops.convert(zeros, "f16"))
        weights = ops.multiply(
            steps, self._constant(matrix.scales, [outputs, groups, 1], ov.Type.f16)
        )
        flat = ops.reshape(weights, _integers(outputs, groups * size), False)
        return ops.convert(flat, "f32")

    def _constant(self, values: np.ndarray, shape: list[int], kind: ov.Type) -> Any:
        """Return a constant in the memory of an array. Integers of 4 bits are two per byte."""
        self.weights.append(values)
        return Constant(ov.Tensor(values, shape, kind))

    def _input(self, name: str, kind: ov.Type, shape: Any) -> Any:
        node = ops.parameter(shape, kind, name=name)
        node.output(0).set_names({name})
        self._inputs.append(node)
        return node


def _integers(*values: int) -> Any:
    """Return a constant: a scalar for one value, otherwise a vector."""
    return ops.constant(np.array(values if len(values) > 1 else values[0], np.int64))


def _output(node: Any) -> Any:
    """Return the first output of a node. One of several outputs is returned as it is."""
    return node if isinstance(node, ov.Output) else node.output(0)


def _split(values: Any, axis: int, sizes: list[int]) -> list[Any]:
    """Return parts of values.

    The axis is not negative, because the compiler would not recognise rotary embeddings then.
    """
    parts = ops.variadic_split(values, _integers(axis), ops.constant(np.array(sizes, np.int64)))
    return list(parts.outputs())


def _unused_inputs() -> list[Any]:
    """Return the inputs of PagedAttention for features that are not used here, 13 to 27.

    They are for the eviction and the rotation of cached keys, sparse attention, attention sinks,
    images, and trees of tokens.
    """
    nothing, nothing_float = np.zeros(0, np.int32), np.zeros(0, np.float32)
    zero = np.int32(0)
    values = [
        nothing,  # score_aggregation_window
        nothing,  # rotated_block_indices
        nothing,  # rotation_deltas
        nothing_float,  # rotation_trig_lut
        nothing_float,  # xattention_threshold
        zero,  # xattention_block_size
        zero,  # xattention_stride
        nothing_float,  # sinks
        zero,  # adaptive_rkv_start_size
        nothing,  # adaptive_rkv_evictable_sizes
        nothing,  # adaptive_rkv_diversity_block_set_indices
        nothing,  # adaptive_rkv_diversity_block_set_indices_begins
        nothing,  # token_type_ids
        np.zeros(0, np.uint8),  # qq_bias
        nothing,  # qq_bias_begins
    ]
    return [ops.constant(value) for value in values]
