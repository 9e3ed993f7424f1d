"""Write a Phi-3 as a GGUF file.

Sources: "GGUF" of ggml's documentation, and llama.cpp's conversion script of Phi-3 (fields and tensors).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OpsError
from .chat_pieces import plain_template
from .formats import LLAMA_FILE_TYPES
from .mixture import Mixture
from .quantizer import block_size, quantize_matrix, row_bytes
from .source import ARCHITECTURE, SourceModel
from .vocabulary import Vocabulary, make_vocabulary
from .weights import DAMAGED_FIX

if TYPE_CHECKING:
    import numpy as np

# llama.cpp's `llama_ftype`.
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, **LLAMA_FILE_TYPES}
LARGEST_F16 = 65504.0
# llama.cpp drops the spaces after special tokens if the model's name matches this. It then looks for the
# tokens below, and does not load a model without them.
_PHI3_NAME = re.compile(r"(phi)-?(3)", re.IGNORECASE)
_PHI3_TOKENS = {"<unk>", "<s>", "</s>", "<|endoftext|>"}
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class WrittenTensors:
    """What the matrices of a GGUF file became.

    Attributes:
        types: type of numbers -> number of matrices.
        fallbacks: number of matrices whose rows do not have a suitable length for the usual type.
    """

    types: Mapping[str, int]
    fallbacks: int


def write_gguf(
    source: SourceModel, path: Path, quantization: str, report: Report
) -> WrittenTensors:
    """Write a GGUF file.

    Args:
        source: the model.
        path: the file.
        quantization: a key of FILE_TYPES. Vectors are always float32.
        report: function that gets the number of parameters written so far, and of all.

    Raises:
        OpsError: llama.cpp cannot run this model, or a number does not fit the type.
    """
    from gguf import GGUFWriter

    check_settings(source)
    vocabulary = make_vocabulary(source)
    writer = GGUFWriter(path, ARCHITECTURE)
    try:
        _add_model_fields(writer, source, vocabulary, quantization)
        _add_tokenizer_fields(writer, source, vocabulary)
        return _write_tensors(writer, source, quantization, report)
    finally:
        writer.close()


def check_settings(source: SourceModel) -> None:
    """Raise OpsError if llama.cpp cannot run a Phi-3 with these settings."""
    config, rope = source.config, source.rope
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "longrope"):
        fix = "llama.cpp runs a Phi-3 with default and longrope only."
        raise OpsError(f"the rotary positions of {source.folder} are of the type {kind}", fix)
    lengths = {len(rope[name]) for name in ("long_factor", "short_factor") if name in rope}
    if kind == "longrope" and lengths != {source.rope_width // 2}:
        fix = f"Both need {source.rope_width // 2} numbers."
        raise OpsError(f"LongRoPE's factors in {source.folder} have another length", fix)
    if source.head_width * config.num_attention_heads != config.hidden_size:
        fix = "llama.cpp runs a Phi-3 only if hidden_size is head_dim times the number of heads."
        raise OpsError(f"head_dim in {source.folder} is {source.head_width}", fix)
    if config.hidden_act != "silu":
        raise OpsError(
            f"hidden_act in {source.folder} is {config.hidden_act}",
            "llama.cpp runs a Phi-3 with silu only.",
        )


def limitations(source: SourceModel) -> list[str]:
    """Return in what llama.cpp differs from transformers for this model, in full sentences."""
    notes = []
    window = getattr(source.config, "sliding_window", None)
    if window and window < source.config.max_position_embeddings:
        notes.append(
            f"llama.cpp does not apply the sliding window of {window:,} tokens: answers differ from "
            f"transformers' after that many tokens."
        )
    if source.rope.get("rope_type") == "longrope":
        notes.append(
            f"llama.cpp uses LongRoPE's long factors if its context window is longer than "
            f"{source.original_context:,} tokens; transformers uses them if the chat is longer."
        )
    return notes


def _add_model_fields(
    writer: Any, source: SourceModel, vocabulary: Vocabulary, quantization: str
) -> None:
    config, rope = source.config, source.rope
    writer.add_name(model_name(source.name, vocabulary))
    if source.licence:
        writer.add_license(source.licence)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_rope_scaling_orig_ctx_len(source.original_context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(source.rope_width)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_sliding_window(getattr(config, "sliding_window", None) or 0)
    if rope.get("rope_type") == "longrope":
        writer.add_rope_scaling_attn_factors(source.attention_factor)
    writer.add_file_type(FILE_TYPES[quantization])


def model_name(name: str, vocabulary: Vocabulary) -> str:
    """Return a name with which llama.cpp treats spaces after special tokens as the tokenizer does."""
    if vocabulary.strips_right and _PHI3_TOKENS.issubset(vocabulary.tokens):
        return name if _PHI3_NAME.search(name) else f"Phi-3 {name}"
    return _PHI3_NAME.sub(r"\1 \2", name)


def _add_tokenizer_fields(writer: Any, source: SourceModel, vocabulary: Vocabulary) -> None:
    tokenizer = source.tokenizer
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "unk": tokenizer.unk_token_id,
        "eot": end_of_turn(source),
    }
    for kind, token in ids.items():
        if token is not None:
            getattr(writer, f"add_{kind}_token_id")(token)
    # The chat template writes all special tokens.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(vocabulary.adds_space)
    writer.add_chat_template(plain_template(tokenizer.chat_template))


def end_of_turn(source: SourceModel) -> int | None:
    """Return the token that ends an answer in the chat template: llama.cpp stops at it as well."""
    tokens = source.end_tokens
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    text = source.tokenizer.apply_chat_template(messages, tokenize=False)
    after = str(text).rpartition("!")[2]
    matches = [token for token in tokens if token in after]
    first = min(matches, key=after.index, default=None)
    return None if first is None else int(source.tokenizer.convert_tokens_to_ids(first))


def _write_tensors(
    writer: Any, source: SourceModel, quantization: str, report: Report
) -> WrittenTensors:
    """Write the header and the tensors; at most one tensor is in memory."""
    config = source.config
    names = _tensor_names(source)
    mixture = Mixture(
        quantization,
        layers=config.num_hidden_layers,
        is_tied="output.weight" not in names.values(),
        groups=config.num_attention_heads // config.num_key_value_heads,
        block_size=block_size,
    )
    shapes = {name: source.weights.shape(name) for name in names}
    types = {name: mixture.type_of(new, shapes[name]) for name, new in names.items()}
    factors = _rope_factors(source)
    for name, new in names.items():
        _add_tensor(writer, new, shapes[name], types[name])
    for new, values in factors.items():
        _add_tensor(writer, new, values.shape, "F32")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    written = 0
    for name in names:
        array = source.weights.read(name)
        writer.write_tensor_data(_encode(array, types[name], name))
        written += array.size
        report(written, source.weights.count)
    for values in factors.values():
        writer.write_tensor_data(values)
    matrices = [name for name, shape in shapes.items() if len(shape) > 1]
    fallbacks = sum(mixture.is_fallback(names[name], shapes[name]) for name in matrices)
    return WrittenTensors(Counter(types[name] for name in matrices), fallbacks)


def _tensor_names(source: SourceModel) -> dict[str, str]:
    """Return the name in the file of each weight.

    Raises:
        OpsError: a weight is not part of a Phi-3, or is missing.
    """
    import gguf

    layers = source.config.num_hidden_layers
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.PHI3, layers)
    names = {name: known.get_name(name, (".weight",)) or "" for name in source.tensor_names}
    if unknown := next((name for name, new in names.items() if not new), None):
        raise OpsError(f"{source.folder} has the weight {unknown}", "A Phi-3 does not have it.")
    expected = {"token_embd.weight", "output_norm.weight"} | {
        f"blk.{layer}.{part}.weight"
        for layer in range(layers)
        for part in ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down")
    }
    if missing := sorted(expected - set(names.values())):
        raise OpsError(
            f"{source.folder} lacks weights of a Phi-3, such as {missing[0]}", DAMAGED_FIX
        )
    return names


def _add_tensor(writer: Any, name: str, shape: tuple[int, ...], type_name: str) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType

    if type_name in ("F32", "F16"):
        number = np.dtype(np.float32 if type_name == "F32" else np.float16)
        writer.add_tensor_info(name, shape, number, int(np.prod(shape)) * number.itemsize)
        return
    rows, columns = shape
    byte_shape = (rows, row_bytes(type_name, columns))
    writer.add_tensor_info(
        name,
        byte_shape,
        np.dtype(np.uint8),
        byte_shape[0] * byte_shape[1],
        raw_dtype=GGMLQuantizationType[type_name],
    )


def _encode(array: np.ndarray, type_name: str, name: str) -> np.ndarray:
    """Return a tensor in the type that it has in the file.

    Raises:
        OpsError: it has a number that the type cannot store.
    """
    import numpy as np
    from gguf import GGMLQuantizationType, quantize

    if not np.isfinite(array).all():
        raise OpsError(f"{name} has a value that is not a number", "The model is damaged.")
    if type_name == "F32":
        return array
    if type_name == "F16":
        if np.abs(array).max(initial=0) > LARGEST_F16:
            fix = "Use f32 or bf16."
            raise OpsError(f"{name} has a value that float16 cannot store", fix)
        return array.astype(np.float16)
    if type_name == "BF16":
        encoded: np.ndarray = quantize(array, GGMLQuantizationType.BF16)
        return encoded
    return quantize_matrix(array, type_name)


def _rope_factors(source: SourceModel) -> dict[str, np.ndarray]:
    import numpy as np

    if source.rope.get("rope_type") != "longrope":
        return {}
    return {
        f"rope_factors_{kind}.weight": np.array(source.rope[f"{kind}_factor"], dtype=np.float32)
        for kind in ("long", "short")
    }
