"""The transformers backend: bf16 on a GPU, fp32 on a CPU, any Phi-3 that transformers loads."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

# Before torch: idle OpenMP threads that spin make a step 10 times slower beside a busy neighbour.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import machine
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

# Below this a matrix is too small to be worth sharing out between threads.
ONE_THREAD_BELOW = 50_000_000
# Phi-3 ends a turn with <|end|>; a model's generation config may name only the end of the text.
END_MARKS = ("<|end|>", "<|endoftext|>")
CPU_ROWS, CPU_CHUNK = 16, 512
GPU_ROWS, GPU_CHUNK = 64, 4096
GPU_SHARE = 0.8  # of the memory that the weights leave; the rest is for what a step computes


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer. Raises ValueError when it has no chat template."""
    # Never the folder's own code: the one shipped with Phi-3 is years behind.
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template: save it with the model")
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


class TransformersBackend:
    """A model folder in memory.

    model_dir and tokenizer_dir are local folders as `save_pretrained` writes them (one and the
    same for a plain model). Raises OSError or ValueError when they cannot be loaded.
    """

    def __init__(self, model_dir: Path, tokenizer_dir: Path):
        transformers_logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = load_tokenizer(tokenizer_dir)
        loader: Any = AutoModelForCausalLM
        model = loader.from_pretrained(
            model_dir, dtype=_dtype(device), local_files_only=True, trust_remote_code=False
        )
        self._setup(model.to(device), tokenizer)

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> TransformersBackend:
        """A backend of a model that is in memory already, on its device."""
        self = cls.__new__(cls)
        self._setup(model, tokenizer)
        return self

    def _setup(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        config = model.config
        gpu = model.device.type != "cpu"
        if not gpu:
            small = model.num_parameters() < ONE_THREAD_BELOW
            torch.set_num_threads(1 if small else machine.cores())
        self.context_window: int = config.max_position_embeddings
        configured = model.generation_config.eos_token_id
        self.end_tokens = frozenset(find_end_tokens(tokenizer, configured))
        pad = tokenizer.pad_token_id
        self.pad_token: int = min(self.end_tokens) if pad is None else pad
        self.heads: int = config.num_key_value_heads
        self.head_size: int = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.window: int | None = getattr(config, "sliding_window", None)
        self.max_rows = GPU_ROWS if gpu else CPU_ROWS
        self.chunk = GPU_CHUNK if gpu else CPU_CHUNK
        self._short = short_window(config)
        if self._short:
            self.chunk = self.context_window  # a piece would get the factors of its own length
        element = torch.finfo(model.dtype).bits // 8
        layers = config.num_hidden_layers
        self.token_bytes = 2 * layers * self.heads * self.head_size * element
        free = int(torch.cuda.mem_get_info()[0] * GPU_SHARE) if gpu else None
        self.cache_bytes = machine.cache_bytes(free)
        self._lock = threading.Lock()  # a fast tokenizer must not be entered twice

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        rendered = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        return str(rendered)

    def encode(self, text: str) -> list[int]:
        with self._lock:
            return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def rotary(self, length: int) -> Hashable:
        return self._short is not None and length > self._short

    def make_cache(self, slots: int, length: int) -> TorchCache:
        return TorchCache(self, slots, length)


def _dtype(device: str) -> torch.dtype:
    if device == "cpu":
        return torch.float32
    # A T4 has no bf16 of its own, only a slow emulation.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def short_window(config: Any) -> int | None:
    """Where a LongRoPE model changes its rotary factors, in tokens; None for the others."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type") or rope.get("type")
    if kind not in ("longrope", "su"):
        return None
    return getattr(config, "original_max_position_embeddings", None) or rope.get(
        "original_max_position_embeddings"
    )


class TorchCache:
    """Keys and values as (slots, heads, length, head size), for transformers' `past_key_values`."""

    def __init__(self, backend: TransformersBackend, slots: int, length: int):
        self._backend = backend
        model = backend.model
        self._decoder, self._head = model.get_decoder(), model.get_output_embeddings()
        shape = (slots, backend.heads, length, backend.head_size)
        # Zeros: what is masked out is still multiplied, and may be no NaN.
        self._layers = [
            tuple(torch.zeros(shape, dtype=model.dtype, device=model.device) for _ in "kv")
            for _ in range(model.config.num_hidden_layers)
        ]

    @torch.inference_mode()
    def forward(self, slot: int, tokens: Sequence[Sequence[int]], past: Sequence[int]) -> Logits:
        device = self._backend.model.device
        width = max(map(len, tokens))
        padded = [[*ids, *[self._backend.pad_token] * (width - len(ids))] for ids in tokens]
        start = torch.tensor(past, device=device)
        positions = start[:, None] + torch.arange(width, device=device)
        total = max(past) + width
        self._where = slice(slot, slot + len(tokens)), positions, total
        keys = torch.arange(total, device=device)
        seen = keys <= positions[..., None]
        if self._backend.window:
            seen &= keys > positions[..., None] - self._backend.window
        out = self._decoder(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=self._mask(seen[:, None]),
            position_ids=positions,
            past_key_values=self,
            use_cache=True,
        )
        last = torch.tensor([len(ids) - 1 for ids in tokens], device=device)
        hidden = out.last_hidden_state[torch.arange(len(tokens), device=device), last]
        return Logits(self._head(hidden))

    def update(self, keys: Any, values: Any, layer: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Called by the model's attention: keep what is new, give all there is."""
        rows, positions, total = self._where
        index = positions[:, None, :, None].expand(keys.shape)
        held = []
        for store, new in zip(self._layers[layer], (keys, values)):
            part = store[rows, :, :total]
            part.scatter_(2, index, new)
            held.append(part)
        return held[0], held[1]

    def copy(self, source: TorchCache, from_slot: int, slot: int, length: int) -> None:
        for mine, theirs in zip(self._layers, source._layers):
            for to, of in zip(mine, theirs):
                to[slot, :, :length] = of[from_slot, :, :length]

    def _mask(self, seen: torch.Tensor) -> torch.Tensor:
        if self._backend.model.config._attn_implementation == "sdpa":
            return seen
        dtype = self._backend.model.dtype
        return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)


class Logits:
    """Logits on their device; only what is asked for is copied."""

    def __init__(self, values: torch.Tensor):
        self._values = values

    def best(self) -> list[int]:
        return self._values.argmax(-1).tolist()

    def row(self, at: int) -> np.ndarray:
        return self._values[at].float().cpu().numpy()
