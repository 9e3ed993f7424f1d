"""The transformers backend: runs any Phi-3 that transformers loads, on a GPU or a CPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

# This must be set before torch is imported. OpenMP threads that wait actively make a step 10 times
# slower when another process uses the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import machine
import numpy as np
import torch
from batching import Piece
from chat_encoder import ChatEncoder
from chat_template import ChatTemplate
from constraints import GrammarCompiler
from tool_format import template_format
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

# The matrices of a model with fewer parameters are computed faster by one thread than by several.
ONE_THREAD_BELOW = 50_000_000
# Phi-3 ends a turn with <|end|>; a model's generation config may name only the end of the text.
END_MARKS = ("<|end|>", "<|endoftext|>")
CPU_MAX_ROWS, CPU_PREFILL_CHUNK = 16, 512
GPU_MAX_ROWS, GPU_PREFILL_CHUNK = 64, 4096
GPU_CACHE_SHARE = 0.8  # of the memory that the weights leave free; a step needs the rest


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a folder.

    Raises:
        ValueError: the tokenizer has no chat template.
    """
    # Code from the model's folder is never run: the code that Phi-3 comes with is outdated.
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template: save it together with the tokenizer")
    return tokenizer


def find_end_tokens(tokenizer: Any, configured: int | list[int] | None) -> list[int]:
    """Return the ids of the tokens that end an answer, each of them once.

    scripts/training/outputs.py has the same function, because each of the two folders is uploaded
    alone; a test compares them.

    Args:
        tokenizer: the model's tokenizer.
        configured: `eos_token_id` of the model's generation config.
    """
    vocabulary = tokenizer.get_vocab()
    marks = [vocabulary.get(mark) for mark in (tokenizer.eos_token, *END_MARKS)]
    ids = [*(configured if isinstance(configured, list) else [configured]), *marks]
    return list(dict.fromkeys(token for token in ids if token is not None))


def find_pad_token(tokenizer: Any, end_tokens: Sequence[int]) -> int:
    """Return the id of the token that fills shorter rows of a batch."""
    pad_token: int | None = tokenizer.pad_token_id
    return min(end_tokens) if pad_token is None else pad_token


def find_short_window(config: Any) -> int | None:
    """Return the length in tokens after which a LongRoPE model uses its other rotary factors.

    Returns None for all other models.
    """
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    rope_type = rope.get("rope_type") or rope.get("type")
    if rope_type not in ("longrope", "su"):
        return None
    key = "original_max_position_embeddings"
    return getattr(config, key, None) or rope.get(key)


class TransformersBackend:
    """A model in memory. See `batching.Backend` for its attributes.

    Args:
        model_dir: folder of the model, as `save_pretrained` writes it.
        tokenizer_dir: folder of the tokenizer; often the same one.

    Raises:
        OSError, ValueError: the model or the tokenizer cannot be loaded.
    """

    is_paged = False

    def __init__(self, model_dir: Path, tokenizer_dir: Path):
        transformers_logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = load_tokenizer(tokenizer_dir)
        loader: Any = AutoModelForCausalLM
        model = loader.from_pretrained(
            model_dir, dtype=_choose_dtype(device), local_files_only=True, trust_remote_code=False
        )
        self._setup(model.to(device), tokenizer)

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> TransformersBackend:
        """Return a backend of a model that is loaded already, on the device that it is on."""
        self = cls.__new__(cls)
        self._setup(model, tokenizer)
        return self

    def _setup(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        tokenizer_json = tokenizer.backend_tokenizer.to_str()
        template = tokenizer.get_chat_template()
        self.render = ChatTemplate(template, tokenizer.special_tokens_map).render
        self.tool_format = template_format(template)
        self.encode_chat = ChatEncoder(tokenizer_json, self.render, self.tool_format).encode
        self._lock = threading.Lock()  # a fast tokenizer must not be used by two threads at once
        config = model.config
        self.vocabulary_size: int = config.vocab_size
        self.context_window: int = config.max_position_embeddings
        end_tokens = find_end_tokens(tokenizer, model.generation_config.eos_token_id)
        self.end_tokens = frozenset(end_tokens)
        self.grammars = GrammarCompiler(tokenizer_json, self.vocabulary_size, self.end_tokens)
        self.pad_token = find_pad_token(tokenizer, end_tokens)
        self.heads: int = config.num_key_value_heads
        self.head_size: int = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.sliding_window: int | None = getattr(config, "sliding_window", None)
        element_bytes = torch.finfo(model.dtype).bits // 8
        layers = config.num_hidden_layers
        self.bytes_per_token = 2 * layers * self.heads * self.head_size * element_bytes
        if model.device.type == "cpu":
            self._limit_to_cpu(model)
        else:
            self._limit_to_gpu()
        self.start_tokens = self.prefill_chunk
        self._short_window = find_short_window(config)

    def _limit_to_cpu(self, model: Any) -> None:
        small = model.num_parameters() < ONE_THREAD_BELOW
        torch.set_num_threads(1 if small else machine.cores_per_worker())
        self.max_rows, self.prefill_chunk = CPU_MAX_ROWS, CPU_PREFILL_CHUNK
        self.max_cache_bytes = machine.max_cache_bytes()

    def _limit_to_gpu(self) -> None:
        self.max_rows, self.prefill_chunk = GPU_MAX_ROWS, GPU_PREFILL_CHUNK
        free, _ = torch.cuda.mem_get_info()
        self.max_cache_bytes = machine.max_cache_bytes(int(free * GPU_CACHE_SHARE))

    def encode(self, text: str) -> list[int]:
        with self._lock:
            return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def rotary_key(self, length: int) -> Hashable:
        return self._short_window is not None and length > self._short_window

    def make_cache(self, slots: int, length: int) -> TorchCache:
        return TorchCache(self, slots, length)

    def release_memory(self) -> None:
        machine.release_heap()


def _choose_dtype(device: str) -> torch.dtype:
    if device == "cpu":
        return torch.float32
    # Some GPUs, such as a T4, only emulate bf16, which is slow.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


class TorchCache:
    """Keys and values as tensors of (slots, heads, length, head size).

    transformers' models take it as `past_key_values`.
    """

    def __init__(self, backend: TransformersBackend, slots: int, length: int):
        self._backend = backend
        model = backend.model
        self._decoder, self._head = model.get_decoder(), model.get_output_embeddings()
        shape = (slots, backend.heads, length, backend.head_size)
        # The values must not be NaN, not even where they are masked: they are multiplied by 0.
        self._layers = [
            tuple(torch.zeros(shape, dtype=model.dtype, device=model.device) for _ in "kv")
            for _ in range(model.config.num_hidden_layers)
        ]

    @torch.inference_mode()
    def forward(
        self,
        slot: int,
        tokens: Sequence[Sequence[int]],
        past: Sequence[int],
        guest: Piece | None = None,
    ) -> TorchLogits:
        if guest:
            raise ValueError("this backend is not paged")
        device = self._backend.model.device
        width = max(map(len, tokens))
        padded = [[*ids, *[self._backend.pad_token] * (width - len(ids))] for ids in tokens]
        start = torch.tensor(past, device=device)
        positions = start[:, None] + torch.arange(width, device=device)
        total = max(past) + width
        # `update` has no arguments for these.
        self._slots, self._positions, self._total = (
            slice(slot, slot + len(tokens)),
            positions,
            total,
        )
        output = self._decoder(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=self._attention_mask(positions, total),
            position_ids=positions,
            past_key_values=self,
            use_cache=True,
        )
        last = torch.tensor([len(ids) - 1 for ids in tokens], device=device)
        hidden = output.last_hidden_state[torch.arange(len(tokens), device=device), last]
        return TorchLogits(self._head(hidden))

    def update(self, keys: Any, values: Any, layer: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Store the new keys and values of a layer, and return all of them.

        The model's attention calls this during `forward`.
        """
        index = self._positions[:, None, :, None].expand(keys.shape)
        parts = []
        for tensor, new in zip(self._layers[layer], (keys, values)):
            part = tensor[self._slots, :, : self._total]
            part.scatter_(2, index, new)
            parts.append(part)
        return parts[0], parts[1]

    def copy(self, source: TorchCache, from_slot: int, slot: int, length: int) -> None:
        for layer, source_layer in zip(self._layers, source._layers):
            for tensor, source_tensor in zip(layer, source_layer):
                tensor[slot, :, :length] = source_tensor[from_slot, :, :length]

    def release(self, slot: int) -> None:
        pass  # its tensors have all slots

    def _attention_mask(self, positions: torch.Tensor, total: int) -> torch.Tensor:
        """Return which keys each position attends to, as (rows, 1, new tokens, all tokens)."""
        keys = torch.arange(total, device=positions.device)
        attended = keys <= positions[..., None]
        if self._backend.sliding_window:
            attended &= keys > positions[..., None] - self._backend.sliding_window
        attended = attended[:, None]
        if self._backend.model.config._attn_implementation == "sdpa":
            return attended
        dtype = self._backend.model.dtype
        return torch.where(attended, 0.0, torch.finfo(dtype).min).to(dtype)


class TorchLogits:
    """Logits on the model's device. Only the requested values are copied to the CPU."""

    def __init__(self, values: torch.Tensor):
        self._values = values

    def after(self, rows: int) -> TorchLogits:
        return TorchLogits(self._values[rows:])

    def best(self, allowed: Mapping[int, np.ndarray]) -> list[int]:
        values = self._values
        if allowed:
            masks = torch.from_numpy(np.stack(list(allowed.values()))).to(values.device)
            rows = torch.tensor(list(allowed), device=values.device)
            constrained = values[rows].masked_fill(~masks, -torch.inf)
            values = values.index_copy(0, rows, constrained)
        return values.argmax(-1).tolist()

    def row(self, index: int) -> np.ndarray:
        return self._values[index].float().cpu().numpy()
