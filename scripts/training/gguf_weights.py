"""Write the weights of a GGUF file as those of a Phi-3, in float32, without rounding anything.

Phi-3 has the queries, keys and values in one matrix, and the gate and the input of the feed-forward layer
in another one. `llama` stores them separately; `phi3` stores them as Phi-3 does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_header import DAMAGED_FIX, LONG_FACTORS, SHORT_FACTORS, UNSUPPORTED_FIX, Header
from inputs import TrainError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader

SHARD_BYTES = 2 * 10**9  # a file of weights has at most this size, unless one matrix is larger
FLOAT_BYTES = 4
IGNORED_TENSORS = {LONG_FACTORS, SHORT_FACTORS}  # the header has read them


@dataclass(frozen=True)
class Part:
    """A tensor of the GGUF file.

    Attributes:
        name: name in the file, without `.weight`.
        shape: expected shape.
        interleaved_heads: number of heads whose rows llama.cpp has interleaved, or 0.
    """

    name: str
    shape: tuple[int, ...]
    interleaved_heads: int = 0


@dataclass(frozen=True)
class Weight:
    """A weight of Phi-3: parts of the GGUF file, one below the other."""

    name: str
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        """Size in float32."""
        sizes = (part.shape[0] * (part.shape[1:] or (1,))[0] for part in self.parts)
        return FLOAT_BYTES * sum(sizes)


def list_weights(header: Header) -> list[Weight]:
    """Return the weights of the model, in the order in which they are written."""
    vector, table = (header.hidden,), (header.vocabulary, header.hidden)
    weights = [Weight("model.embed_tokens.weight", (Part("token_embd", table),))]
    for layer in range(header.layers):
        weights += _layer_weights(header, layer)
    weights.append(Weight("model.norm.weight", (Part("output_norm", vector),)))
    if not header.tied:
        weights.append(Weight("lm_head.weight", (Part("output", table),)))
    return weights


def _layer_weights(header: Header, layer: int) -> Iterator[Weight]:
    hidden, inner = header.hidden, header.intermediate
    queries = header.heads * header.head_width
    keys = header.key_value_heads * header.head_width
    if header.architecture == "llama":
        attention = [
            Part("attn_q", (queries, hidden), header.heads),
            Part("attn_k", (keys, hidden), header.key_value_heads),
            Part("attn_v", (keys, hidden)),
        ]
        gate_up = [Part("ffn_gate", (inner, hidden)), Part("ffn_up", (inner, hidden))]
    else:
        attention = [Part("attn_qkv", (queries + 2 * keys, hidden))]
        gate_up = [Part("ffn_up", (2 * inner, hidden))]
    parts = {
        "input_layernorm": [Part("attn_norm", (hidden,))],
        "self_attn.qkv_proj": attention,
        "self_attn.o_proj": [Part("attn_output", (hidden, queries))],
        "post_attention_layernorm": [Part("ffn_norm", (hidden,))],
        "mlp.gate_up_proj": gate_up,
        "mlp.down_proj": [Part("ffn_down", (hidden, inner))],
    }
    for name, sources in parts.items():
        numbered = (
            Part(f"blk.{layer}.{part.name}", part.shape, part.interleaved_heads) for part in sources
        )
        yield Weight(f"model.layers.{layer}.{name}.weight", tuple(numbered))


def check_tensors(reader: GGUFReader, weights: list[Weight], path: Path) -> None:
    """Check that the file has exactly the tensors of these weights, with their shapes.

    Raises:
        TrainError: a tensor is missing, has another shape, or is not part of a Phi-3 (such as a bias).
    """
    expected = {f"{part.name}.weight": part for weight in weights for part in weight.parts}
    shapes = {tensor.name: tuple(map(int, tensor.shape[::-1])) for tensor in reader.tensors}
    for name in shapes:
        if name not in expected and name not in IGNORED_TENSORS:
            raise TrainError(f"the tensor {name} is not supported", path, UNSUPPORTED_FIX)
    for name, part in expected.items():
        if shapes.get(name) != part.shape:
            problem = f"the tensor {name} is missing or has another shape than {part.shape}"
            raise TrainError(problem, path, DAMAGED_FIX)


def save_weights(
    reader: GGUFReader,
    weights: list[Weight],
    folder: Path,
    path: Path,
    report: Callable[[int, int], None],
) -> None:
    """Write the weights into `model.safetensors`, or into several files and their index.

    Args:
        reader: the opened GGUF file.
        weights: weights to write.
        folder: folder to write to.
        path: the GGUF file, for error messages.
        report: function that gets the bytes written so far, and all bytes.

    Raises:
        TrainError: a tensor has a quantization that the package `gguf` cannot read.
        OSError: the folder cannot be written.
    """
    from safetensors.numpy import save_file

    tensors = {tensor.name: tensor for tensor in reader.tensors}
    shards, all_bytes, written = _shards(weights), sum(weight.bytes for weight in weights), 0
    files: dict[str, str] = {}  # name of a weight -> name of its file
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        if len(shards) == 1:
            file = "model.safetensors"
        arrays = {}
        for weight in shard:
            arrays[weight.name] = _read(weight, tensors, path)
            written += weight.bytes
            report(written, all_bytes)
        save_file(arrays, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(arrays, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": all_bytes}, "weight_map": files}
        text = json.dumps(index, indent=2) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _shards(weights: list[Weight]) -> list[list[Weight]]:
    """Return the weights of each file."""
    shards: list[list[Weight]] = [[]]
    size = 0
    for weight in weights:
        if shards[-1] and size + weight.bytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(weight)
        size += weight.bytes
    return shards


def _read(weight: Weight, tensors: dict[str, Any], path: Path) -> np.ndarray:
    """Return a weight in float32."""
    import numpy as np
    from gguf import dequantize

    arrays = []
    for part in weight.parts:
        tensor = tensors[f"{part.name}.weight"]
        try:
            array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        except (NotImplementedError, KeyError) as error:
            kind = getattr(tensor.tensor_type, "name", tensor.tensor_type)
            problem = f"the quantization {kind} of {part.name}.weight cannot be read"
            raise TrainError(
                problem, path, "use another file of the model, such as Q8_0"
            ) from error
        if part.interleaved_heads:
            array = separate_halves(array, part.interleaved_heads)
        arrays.append(array)
    return np.ascontiguousarray(np.concatenate(arrays))


def separate_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo the order of llama.cpp's rows of queries and keys.

    llama.cpp rotates pairs of neighbouring rows, transformers the rows of the two halves of a head.

    Args:
        rows: matrix of (heads * width, hidden).
        heads: number of heads.
    """
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
