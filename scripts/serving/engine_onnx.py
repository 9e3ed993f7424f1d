"""The ONNX Runtime backend: what `onnx_export` wrote, on a CPU.

onnxruntime-genai's own loops run fixed batches, which nobody can join, or at most 4 rows. So its
exporter's graph runs here in onnxruntime itself. That graph (GroupQueryAttention) reads and writes
keys and values in place, each row at its own position, in a buffer that the caller owns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

# Since 1.31 it reports to Microsoft how it is used, unless this is set when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort  # noqa: E402

ROWS, CHUNK = 16, 512
# Below this a matrix is too small to be worth sharing out between threads.
ONE_THREAD_BELOW = 200 * machine.MIB


class OnnxBackend:
    """An exported model in memory. folder: what `onnx_export.export` wrote."""

    max_rows, chunk = ROWS, CHUNK

    def __init__(self, folder: Path):
        about = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
        self.context_window: int = about["context_window"]
        self.end_tokens = frozenset(about["end_tokens"])
        self.pad_token: int = about["pad_token"]
        self._short: int | None = about["short_window"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # As transformers renders chat templates ("Chat templates: writing a template").
        jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        jinja.globals["raise_exception"] = _raise
        jinja.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self._template = jinja.from_string(about["chat_template"])
        self._specials: dict[str, str] = about["specials"]
        self.session = _session(folder / "model.onnx")
        inputs = [item for item in self.session.get_inputs() if item.name.startswith("past_")]
        # The exporter names them past_key_values.0.key and present.0.key.
        self.caches = [
            (item.name, item.name.replace("past_key_values", "present")) for item in inputs
        ]
        _, self.heads, _, _ = inputs[0].shape
        config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        self.head_size: int = config["model"]["decoder"]["head_size"]
        self.token_bytes = len(inputs) * self.heads * self.head_size * 4
        self.cache_bytes = machine.cache_bytes()

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        return self._template.render(
            messages=list(messages), add_generation_prompt=True, **self._specials
        )

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def rotary(self, length: int) -> Hashable:
        return self._short is not None and length > self._short

    def make_cache(self, slots: int, length: int) -> OnnxCache:
        return OnnxCache(self, slots, length)


def _raise(message: str) -> None:
    raise ValueError(message)


def _session(model: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    size = sum(file.stat().st_size for file in model.parent.glob("model.onnx*"))
    given = os.environ.get("PHI3_THREADS")
    small = 1 if size < ONE_THREAD_BELOW else machine.cores()
    options.intra_op_num_threads = int(given) if given else small
    # Threads that spin take the cores that the server's own threads need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


class OnnxCache:
    """Keys and values as (slots, heads, length, head size) float32, written in place."""

    def __init__(self, backend: OnnxBackend, slots: int, length: int):
        self._backend = backend
        self._length = length
        shape = (slots, backend.heads, length, backend.head_size)
        self._arrays = [np.zeros(shape, np.float32) for _ in backend.caches]
        self._bindings: dict[tuple[int, int], Any] = {}

    def forward(self, slot: int, tokens: Sequence[Sequence[int]], past: Sequence[int]) -> Logits:
        rows, width = len(tokens), max(map(len, tokens))
        totals = [len(ids) + before for ids, before in zip(tokens, past)]
        pad, longest = self._backend.pad_token, max(totals)
        ids = np.array([[*row, *[pad] * (width - len(row))] for row in tokens], np.int64)
        mask = (np.arange(longest) < np.array(totals)[:, None]).astype(np.int64)
        binding = self._binding(slot, rows)
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", mask)
        self._backend.session.run_with_iobinding(binding)
        logits = binding.get_outputs()[0].numpy()
        binding.bind_output("logits")  # lets go of these; the next ones have another shape
        if width == 1:
            return Logits(logits[:, 0])
        return Logits(logits[np.arange(rows), [len(ids) - 1 for ids in tokens]])

    def copy(self, source: OnnxCache, from_slot: int, slot: int, length: int) -> None:
        for mine, theirs in zip(self._arrays, source._arrays):
            mine[slot, :, :length] = theirs[from_slot, :, :length]

    def _binding(self, slot: int, rows: int) -> Any:
        """The keys and values of so many rows from a slot on, as the graph's inputs and outputs."""
        if (slot, rows) not in self._bindings:
            binding = self._backend.session.io_binding()
            binding.bind_output("logits")
            for (past, present), array in zip(self._backend.caches, self._arrays):
                part = array[slot : slot + rows]
                where = ("cpu", 0, np.float32, part.shape, part.ctypes.data)
                binding.bind_input(past, *where)
                binding.bind_output(present, *where)
            self._bindings[slot, rows] = binding
        return self._bindings[slot, rows]


class Logits:
    """What the model says comes next; the array holds the memory that the runtime wrote it to."""

    def __init__(self, values: np.ndarray):
        self._values = values

    def best(self) -> list[int]:
        return self._values.argmax(-1).tolist()

    def row(self, at: int) -> np.ndarray:
        return self._values[at]
