"""Check that llama.cpp renders and tokenizes chats as transformers does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OpsError
from .gguf_file import write_gguf
from .llama_server import llama_server
from .source import SourceModel
from .weights import Weights

if TYPE_CHECKING:
    import numpy as np

# What tokenizers treat differently: spaces, digits, contractions, other scripts, code, special tokens.
_QUESTIONS = (
    "Who founded Microsoft in 1975?",
    "  two  spaces,\n\n1. a list\n\ttab ",
    "I'll, we've, L'été; naïve – “quoted” …",
    "日本の首都は?  Москва, العربية, हिन्दी 🙂👩‍💻",
    "def f(x):\n    return x['a'] == 3.14159e-10 # <tag/>",
    "CamelCaseWORD http://example.com/a_b?c=1&d=%20",
)
_WIDTH = 32  # of the model that only has the vocabulary
OTHER_FORMAT_FIX = "Export the model to onnx instead."


class _EmptyWeights(Weights):
    """The weights of a model of one layer that has the same vocabulary: all are zero."""

    def __init__(self, rows: int, is_tied: bool) -> None:
        table, square = (rows, _WIDTH), (_WIDTH, _WIDTH)
        layer = "model.layers.0"
        self._shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": table,
            "model.norm.weight": (_WIDTH,),
            f"{layer}.input_layernorm.weight": (_WIDTH,),
            f"{layer}.post_attention_layernorm.weight": (_WIDTH,),
            f"{layer}.self_attn.qkv_proj.weight": (3 * _WIDTH, _WIDTH),
            f"{layer}.self_attn.o_proj.weight": square,
            f"{layer}.mlp.gate_up_proj.weight": (2 * _WIDTH, _WIDTH),
            f"{layer}.mlp.down_proj.weight": square,
        }
        if not is_tied:
            self._shapes["lm_head.weight"] = table

    @property
    def names(self) -> list[str]:
        return list(self._shapes)

    @property
    def count(self) -> int:
        return 0

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def read(self, name: str) -> np.ndarray:
        import numpy as np

        return np.zeros(self._shapes[name], dtype=np.float32)


def check_tokenizer(source: SourceModel, folder: Path) -> None:
    """Check the chat template and the tokenizer of a model in llama.cpp.

    Args:
        source: the model.
        folder: folder for a temporary file of a few megabytes.

    Raises:
        OpsError: llama.cpp writes or tokenizes a chat in another way.
    """
    file = folder / "vocabulary.gguf"
    write_gguf(_with_empty_weights(source), file, "f16", lambda written, total: None)
    tokenizer = source.tokenizer
    with llama_server(file, threads=1) as server:
        for messages in _chats(tokenizer):
            text = _render(tokenizer, messages)
            if server.post("/apply-template", {"messages": messages})["prompt"] != text:
                what = f"llama.cpp renders the chat template of {source.folder} differently"
                raise OpsError(f"{what}, for example for {messages}", OTHER_FORMAT_FIX)
            request = {"content": text, "add_special": True, "parse_special": True}
            tokens = server.post("/tokenize", request)["tokens"]
            if tokens != tokenizer.encode(text, add_special_tokens=False):
                what = f"llama.cpp tokenizes differently from the tokenizer of {source.folder}"
                raise OpsError(f"{what}, for example {text!r}", OTHER_FORMAT_FIX)
    file.unlink()


def _with_empty_weights(source: SourceModel) -> SourceModel:
    config = copy.deepcopy(source.config)
    config.hidden_size = config.intermediate_size = config.head_dim = _WIDTH
    config.num_hidden_layers = config.num_attention_heads = config.num_key_value_heads = 1
    rope = source.rope
    config.rope_parameters = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
    rows = source.weights.shape("model.embed_tokens.weight")[0]
    weights = _EmptyWeights(rows, config.tie_word_embeddings)
    return replace(source, config=config, weights=weights)


def _chats(tokenizer: Any) -> Iterator[list[dict[str, str]]]:
    """Yield chats that the template accepts: not every template has a system message."""
    for question in _QUESTIONS:
        yield [{"role": "user", "content": question}]
    first, second, *_ = _QUESTIONS
    turns = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": second.strip()},
        {"role": "user", "content": first},
    ]
    yield turns
    with_system = [{"role": "system", "content": "Answer briefly."}, *turns]
    try:
        _render(tokenizer, with_system)
    except Exception:  # a template raises what it likes
        return
    yield with_system


def _render(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
