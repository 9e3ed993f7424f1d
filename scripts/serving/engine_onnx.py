"""The ONNX Runtime backend: runs a model that `onnx_export` has exported, on a CPU.

The generation loops of onnxruntime-genai run fixed batches that no request can join, or at most 4
rows. This backend therefore runs the exported graph in onnxruntime itself. The graph's attention
(GroupQueryAttention) reads and writes keys and values in place, each row at its own position, in a
buffer that the caller owns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from chat_encoder import ChatEncoder
from chat_template import ChatTemplate
from onnx_graph import LAST_TOKENS
from tokenizers import Tokenizer

# Since version 1.31, onnxruntime reports its use to Microsoft unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort  # noqa: E402

MAX_ROWS, PREFILL_CHUNK = 16, 512
# The matrices of a model smaller than this are computed faster by one thread than by several.
ONE_THREAD_BELOW = 16 * machine.MIB
# How long a thread waits actively for the next operator, which mostly comes sooner. Longer waits
# take the cores that the server's own threads need.
SPIN_MICROSECONDS = 100


class OnnxBackend:
    """An exported model in memory. See `batching.Backend` for its attributes.

    Args:
        folder: folder that `onnx_export.ensure_export` returned.
    """

    max_rows, prefill_chunk = MAX_ROWS, PREFILL_CHUNK

    def __init__(self, folder: Path):
        settings = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
        self.context_window: int = settings["context_window"]
        self.end_tokens = frozenset(settings["end_tokens"])
        self.pad_token: int = settings["pad_token"]
        self._short_window: int | None = settings["short_window"]
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self.render = ChatTemplate(settings["chat_template"], settings["specials"]).render
        self.encode_chat = ChatEncoder(tokenizer_json, self.render).encode
        self.session = _load_session(folder / "model.onnx")
        self.threads: int = self.session.get_session_options().intra_op_num_threads
        inputs = [item for item in self.session.get_inputs() if item.name.startswith("past_")]
        # The exporter names the inputs past_key_values.0.key and the outputs present.0.key.
        self.cache_names = [
            (item.name, item.name.replace("past_key_values", "present")) for item in inputs
        ]
        _, self.heads, _, _ = inputs[0].shape
        config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        self.vocabulary_size: int = config["model"]["vocab_size"]
        self.head_size: int = config["model"]["decoder"]["head_size"]
        self.bytes_per_token = len(inputs) * self.heads * self.head_size * 4
        self.max_cache_bytes = machine.max_cache_bytes()

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def rotary_key(self, length: int) -> Hashable:
        return self._short_window is not None and length > self._short_window

    def make_cache(self, slots: int, length: int) -> OnnxCache:
        return OnnxCache(self, slots, length)


def _load_session(model: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    size = sum(file.stat().st_size for file in model.parent.glob("model.onnx*"))
    threads = 1 if size < ONE_THREAD_BELOW else machine.cores_per_worker()
    options.intra_op_num_threads = int(os.environ.get("PHI3_THREADS") or threads)
    spin = str(SPIN_MICROSECONDS)
    options.add_session_config_entry("session.intra_op.spin_duration_us", spin)
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


class OnnxCache:
    """Keys and values as arrays of (slots, heads, length, head size) float32, written in place."""

    def __init__(self, backend: OnnxBackend, slots: int, length: int):
        self._backend = backend
        shape = (slots, backend.heads, length, backend.head_size)
        self._arrays = [np.zeros(shape, np.float32) for _ in backend.cache_names]
        self._bindings: dict[tuple[int, int], Any] = {}

    def forward(
        self, slot: int, tokens: Sequence[Sequence[int]], past: Sequence[int]
    ) -> OnnxLogits:
        rows, width = len(tokens), max(map(len, tokens))
        lengths = [len(ids) + past_length for ids, past_length in zip(tokens, past)]
        pad = self._backend.pad_token
        input_ids = np.array([[*ids, *[pad] * (width - len(ids))] for ids in tokens], np.int64)
        mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
        binding = self._binding(slot, rows)
        binding.bind_cpu_input("input_ids", input_ids)
        binding.bind_cpu_input("attention_mask", mask)
        last_tokens = np.array([[len(ids) - 1] for ids in tokens], np.int64)
        binding.bind_cpu_input(LAST_TOKENS, last_tokens)
        self._backend.session.run_with_iobinding(binding)
        logits = binding.get_outputs()[0].numpy()
        # The binding gives up this output: the next one has another shape.
        binding.bind_output("logits")
        return OnnxLogits(logits)

    def copy(self, source: OnnxCache, from_slot: int, slot: int, length: int) -> None:
        for array, source_array in zip(self._arrays, source._arrays):
            array[slot, :, :length] = source_array[from_slot, :, :length]

    def _binding(self, slot: int, rows: int) -> Any:
        """Return a binding whose keys and values are those of `rows` slots, starting at `slot`."""
        if (slot, rows) not in self._bindings:
            binding = self._backend.session.io_binding()
            binding.bind_output("logits")
            for (past, present), array in zip(self._backend.cache_names, self._arrays):
                part = array[slot : slot + rows]
                buffer = ("cpu", 0, np.float32, part.shape, part.ctypes.data)
                binding.bind_input(past, *buffer)
                binding.bind_output(present, *buffer)
            self._bindings[slot, rows] = binding
        return self._bindings[slot, rows]


class OnnxLogits:
    """Logits in the memory that the runtime wrote them to."""

    def __init__(self, values: np.ndarray):
        self._values = values

    def best(self) -> list[int]:
        return self._values.argmax(-1).tolist()

    def row(self, index: int) -> np.ndarray:
        return self._values[index]
