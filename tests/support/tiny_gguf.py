"""Tiny GGUF files of random models, as llama.cpp's conversion scripts write them.

Each function returns the original model of transformers, so that a test can compare with it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONTROL, NORMAL = 3, 1  # token types
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXTS = (
    "Who founded Microsoft?",
    "Bill Gates and Paul Allen founded it in 1975.",
    "日本 🙂",
    "a  b\n\n1. c",
)
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


@functools.cache
def make_vocabulary() -> tuple[list[str], list[str]]:
    """Return the tokens and the merges of a byte-level tokenizer with ChatML's special tokens."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, "\n\n\n\n  \n\n  "] * 3, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    return tokens, [" ".join(merge) for merge in merges]


def write_llama(path: Path, *, quantization: str = "F32", tied: bool = True, **changes: Any) -> Any:
    """Write a Llama; `changes` are settings of LlamaConfig. Return the original."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {**SHAPE, "tie_word_embeddings": tied, **changes}
    config = LlamaConfig(vocab_size=len(make_vocabulary()[0]), **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    tensors = {}
    for name, weight in model.state_dict().items():
        array = weight.numpy()
        if "q_proj" in name:
            array = interleave(array, config.num_attention_heads)
        if "k_proj" in name:
            array = interleave(array, config.num_key_value_heads)
        tensors[name] = array
    write_file(path, "llama", config, tensors, quantization=quantization)
    return model


def interleave(rows: Any, heads: int) -> Any:
    """Order the rows of queries or keys as llama.cpp's `permute` does."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def write_phi3(path: Path, *, extra: Mapping[str, Any] | None = None, **changes: Any) -> Any:
    """Write a Phi-3; `changes` are settings of Phi3Config. Return the original."""
    import numpy as np
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    settings = {**SHAPE, "original_max_position_embeddings": 256, **changes}
    config = Phi3Config(vocab_size=len(make_vocabulary()[0]), **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Phi3ForCausalLM(config).eval()
    tensors = {name: weight.numpy() for name, weight in model.state_dict().items()}
    factors = {
        f"rope_factors_{kind}.weight": np.array(values, dtype=np.float32)
        for kind in ("long", "short")
        if (values := config.rope_parameters.get(f"{kind}_factor"))
    }
    write_file(path, "phi3", config, tensors, more_tensors=factors, fields=extra or {})
    return model


def write_file(
    path: Path,
    architecture: str,
    config: Any,
    tensors: Mapping[str, Any],
    *,
    quantization: str = "F32",
    more_tensors: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> None:
    """Write a GGUF file.

    Args:
        path: the file.
        architecture: value of `general.architecture`.
        config: configuration of the model in transformers.
        tensors: weights by their names in transformers.
        quantization: name of gguf's quantization of the matrices.
        more_tensors: tensors by their names in the file.
        fields: fields that are added, or replace others; None leaves a field out.
    """
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    for name, value in {**_fields(architecture, config), **(fields or {})}.items():
        _add(writer, name, value)
    names = gguf.get_tensor_name_map(
        gguf.MODEL_ARCH.LLAMA if architecture == "llama" else gguf.MODEL_ARCH.PHI3,
        config.num_hidden_layers,
    )
    kind = gguf.GGMLQuantizationType[quantization]
    for name, array in tensors.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        raw_kind = kind if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quantize(array, raw_kind)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), data, raw_dtype=raw_kind)
    for name, array in (more_tensors or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _fields(architecture: str, config: Any) -> dict[str, Any]:
    tokens, merges = make_vocabulary()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    fields = {
        "general.name": "Tiny",
        "general.license": "mit",
        f"{architecture}.context_length": config.max_position_embeddings,
        f"{architecture}.embedding_length": config.hidden_size,
        f"{architecture}.feed_forward_length": config.intermediate_size,
        f"{architecture}.block_count": config.num_hidden_layers,
        f"{architecture}.attention.head_count": config.num_attention_heads,
        f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
        f"{architecture}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{architecture}.rope.freq_base": float(rope["rope_theta"]),
        f"{architecture}.rope.dimension_count": int(head * rope.get("partial_rotary_factor", 1.0)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if token in SPECIALS else NORMAL for token in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": SMOLLM2_TEMPLATE,
    }
    if head != config.hidden_size // config.num_attention_heads:
        fields |= {
            f"{architecture}.attention.key_length": head,
            f"{architecture}.attention.value_length": head,
        }
    if rope.get("rope_type") == "longrope":
        original = config.original_max_position_embeddings
        fields[f"{architecture}.rope.scaling.original_context_length"] = original
    if getattr(config, "sliding_window", None):
        fields[f"{architecture}.attention.sliding_window"] = config.sliding_window
    return fields


def _add(writer: Any, name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, list):
        writer.add_array(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    else:
        writer.add_uint32(name, value)
