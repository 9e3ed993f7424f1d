"""The transformers backend: fp32 on a CPU, bf16 on a GPU, any Phi-3 that transformers loads."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before torch: idle OpenMP threads that spin make a step 10 times slower beside a busy neighbour.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from engine import Row
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteriaList
from transformers.utils import logging as transformers_logging

# Below this a matrix is too small to be worth sharing out between threads.
ONE_THREAD_BELOW = 50_000_000
# Phi-3 ends a turn with <|end|>; a fine-tuned model's generation_config may have lost it.
END_MARKS = ("<|end|>", "<|endoftext|>")


def _dtype(device: str) -> torch.dtype:
    if device == "cpu":
        return torch.float32
    # A T4 has no bf16 of its own, only a slow emulation.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


class TransformersBackend:
    """A model folder in memory.

    model_dir and tokenizer_dir are local folders as `save_pretrained` writes them (one and the
    same for a plain model). Raises OSError or ValueError when they cannot be loaded.
    """

    def __init__(self, model_dir: Path, tokenizer_dir: Path):
        transformers_logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # Never the folder's own modelling code: the one shipped with Phi-3 is years behind.
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_dir, **local)
        if not self.tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template: save it with the model")
        model: Any = AutoModelForCausalLM
        self.model = model.from_pretrained(model_dir, dtype=_dtype(device), **local)
        self.model.to(device).eval()
        if device == "cpu" and self.model.num_parameters() < ONE_THREAD_BELOW:
            torch.set_num_threads(1)
        config = self.model.config
        self.context_window: int = config.max_position_embeddings
        self._short_window = getattr(config, "original_max_position_embeddings", None)
        self._end_tokens = self._find_end_tokens()
        self._pad = self.tokenizer.pad_token_id
        if self._pad is None:
            self._pad = min(self._end_tokens)
        self._lock = threading.Lock()  # a fast tokenizer must not be entered twice

    def _find_end_tokens(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id
        ids = set(configured if isinstance(configured, list) else [configured])
        vocabulary = self.tokenizer.get_vocab()
        ids |= {self.tokenizer.eos_token_id, *(vocabulary.get(mark) for mark in END_MARKS)}
        return frozenset(ids - {None})

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

    def batch_class(self, length: int) -> object:
        # LongRoPE models change their rotary factors for the whole batch once a row is long.
        return self._short_window is not None and length > self._short_window

    def run(self, rows: Sequence[Row]) -> None:
        params = rows[0].params
        if params.seed is not None:
            torch.manual_seed(params.seed)
        ids, mask = self._pad_left([row.prompt for row in rows])

        def watch(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            tokens = input_ids[:, -1].tolist()
            done = [row.push(token, self._end_tokens) for row, token in zip(rows, tokens)]
            return torch.tensor(done, device=input_ids.device)

        with torch.inference_mode():
            self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._settings(rows),
                stopping_criteria=StoppingCriteriaList([watch]),
            )

    def _pad_left(self, prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        # An empty prompt still needs one position to start from.
        prompts = [prompt or [self._pad] for prompt in prompts]
        width = max(map(len, prompts))
        ids = [[self._pad] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self.model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _settings(self, rows: Sequence[Row]) -> Any:
        params = rows[0].params
        settings = copy.deepcopy(self.model.generation_config)
        settings.update(
            max_new_tokens=max(row.params.max_new_tokens for row in rows),
            do_sample=params.do_sample,
            temperature=params.temperature if params.do_sample else 1.0,
            top_p=params.top_p if params.do_sample else 1.0,
            # 50 is transformers' default, which the contracts know nothing of; greedy warns at 0.
            top_k=0 if params.do_sample else 50,
            eos_token_id=sorted(self._end_tokens),
            pad_token_id=self._pad,
            use_cache=True,
        )
        return settings
