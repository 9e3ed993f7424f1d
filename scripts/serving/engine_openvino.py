"""The OpenVINO backend: runs a model that `openvino_export` has exported, on a CPU.

OpenVINO GenAI's own generation has no log probabilities of alternatives, no biases of single tokens
and no sampling that is independent of the other requests. This backend therefore runs the graph
itself (`openvino_graph`), with the same kernels.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from batching import Piece
from chat_encoder import ChatEncoder
from chat_template import ChatTemplate
from constraints import GrammarCompiler
from huge_pages import use_huge_pages
from kv_blocks import BlockFormat, BlockPool
from openvino_graph import WEIGHTS, Architecture, build_graph
from openvino_runtime import core
from openvino_runtime import openvino as ov
from tokenizers import Tokenizer
from tool_format import template_format

MAX_ROWS, PREFILL_CHUNK = 16, 512
# Short prompts share passes of this size. The rows of a larger pass would all wait for its end.
START_TOKENS = 128
COMPUTATIONS = {"fp32": "f32", "bf16": "bf16"}  # OpenVINO's names of them
# Type of the keys and values by the precision of the weights and by the computation. Their own error is
# smaller than that of the rounded weights, and they need less memory and less time to be read.
CACHES = {
    ("fp32", "fp32"): "f32",
    ("fp16", "fp32"): "f16",
    ("fp32", "bf16"): "bf16",
    ("fp16", "bf16"): "bf16",
}
SMALL_CACHE = "u8"  # where the weights have 8 bits or fewer
# The matrices of a model smaller than this are computed faster by one thread than by several.
ONE_THREAD_BELOW = 16 * machine.MIB


class OpenVinoBackend:
    """An exported model in memory. See `batching.Backend` for its attributes.

    Args:
        folder: folder that `openvino_export.ensure_export` returned.
        computation: "fp32", or "bf16", which is faster on CPUs that compute it themselves. With it, an
            answer can depend on the other requests of its batch.
    """

    max_rows, prefill_chunk, start_tokens = MAX_ROWS, PREFILL_CHUNK, START_TOKENS
    is_paged = True

    def __init__(self, folder: Path, computation: str = "fp32"):
        settings = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
        self.context_window: int = settings["context_window"]
        self.end_tokens = frozenset(settings["end_tokens"])
        self.pad_token: int = settings["pad_token"]
        self._short_window: int | None = settings["short_window"]
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self.render = ChatTemplate(settings["chat_template"], settings["specials"]).render
        self.tool_format = template_format(settings["chat_template"])
        self.encode_chat = ChatEncoder(tokenizer_json, self.render, self.tool_format).encode
        self.architecture = Architecture.read(folder)
        self.vocabulary_size = self.architecture.vocabulary_size
        self.grammars = GrammarCompiler(tokenizer_json, self.vocabulary_size, self.end_tokens)
        self.threads = _choose_threads(folder)
        graph, self._weights = build_graph(folder)
        cache_type = CACHES.get((settings["precision"], computation), SMALL_CACHE)
        compiled = _compile(graph, self.threads, COMPUTATIONS[computation], cache_type)
        self._passes = 0
        self.release_pages()
        self.request = compiled.create_infer_request()
        blocks = [BlockFormat(item) for item in compiled.inputs if "_cache." in item.any_name]
        block_bytes = sum(block.size for block in blocks)
        self.bytes_per_token = block_bytes // blocks[0].length
        self.max_cache_bytes = machine.max_cache_bytes()
        # Each row can have a last block that is not full.
        capacity = self.max_cache_bytes // block_bytes + 4 * MAX_ROWS
        self.pool = BlockPool(blocks, capacity)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def rotary_key(self, length: int) -> Hashable:
        return self._short_window is not None and length > self._short_window

    def release_pages(self) -> None:
        """Let the system drop the pages of the mapped weights, of which the compiled model has copies.

        The copies get pages of 2 MiB. The runtime makes more of them in the first passes of each shape,
        so this is done again after 2, 4, 8, ... passes.
        """
        self._passes += 1
        is_power_of_two = self._passes & (self._passes - 1) == 0
        if is_power_of_two and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            for array in self._weights:
                array.base.madvise(mmap.MADV_DONTNEED)
            use_huge_pages()

    def make_cache(self, slots: int, length: int) -> OpenVinoCache:
        return OpenVinoCache(self, slots)

    def release_memory(self) -> None:
        self.pool.release_memory()
        machine.release_heap()

    def rotation(self, positions: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the cosines and sines of positions, for rows of this length."""
        sizes = self.architecture
        is_long = self.rotary_key(length)
        frequencies = np.array(sizes.long_frequencies if is_long else sizes.frequencies, np.float32)
        angles = positions.astype(np.float32)[:, None, None, None] * frequencies
        angles = np.concatenate([angles, angles], -1)
        scale = np.float32(sizes.rotation_scale)
        return np.cos(angles) * scale, np.sin(angles) * scale


def _choose_threads(folder: Path) -> int:
    size = sum(file.stat().st_size for file in (folder / WEIGHTS).iterdir())
    threads = 1 if size < ONE_THREAD_BELOW else machine.cores_per_worker()
    return machine.read_count("PHI3_THREADS") or threads


def _compile(graph: ov.Model, threads: int, computation: str, cache_type: str) -> ov.CompiledModel:
    settings = {
        "INFERENCE_PRECISION_HINT": computation,
        "KV_CACHE_PRECISION": cache_type,
        # Each token has a scale of its own, so that no other token of its block changes its values.
        "KEY_CACHE_QUANT_MODE": "BY_TOKEN",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # other processes may use the same cores
    }
    return core().compile_model(graph, "CPU", settings)


class OpenVinoCache:
    """Rows whose keys and values are in blocks of the backend's pool."""

    def __init__(self, backend: OpenVinoBackend, slots: int):
        self._backend, self._pool = backend, backend.pool
        self._tables: list[list[int]] = [[] for _ in range(slots)]  # the blocks of each slot

    def __del__(self) -> None:
        for table in self._tables:
            self._pool.release(table)

    def forward(
        self,
        slot: int,
        tokens: Sequence[Sequence[int]],
        past: Sequence[int],
        guest: Piece | None = None,
    ) -> OpenVinoLogits:
        tables = self._tables[slot : slot + len(tokens)]
        if guest:
            tables = [*tables, guest.cache._tables[0]]
            tokens, past = [*tokens, guest.tokens], [*past, guest.past]
        counts = [len(ids) for ids in tokens]
        lengths = [count + row_past for count, row_past in zip(counts, past)]
        for table, start, end in zip(tables, past, lengths):
            self._pool.prepare(table, start, end)
        used = [self._pool.blocks_for(length) for length in lengths]
        blocks = [table[:count] for table, count in zip(tables, used)]
        positions = np.concatenate([np.arange(*ends) for ends in zip(past, lengths)])
        cosines, sines = self._backend.rotation(positions, max(lengths))
        ends = np.cumsum(counts)
        request = self._backend.request
        self._pool.bind(request)
        _set(request, "input_ids", np.concatenate(tokens).astype(np.int64))
        _set(request, "cosines", cosines)
        _set(request, "sines", sines)
        _set(request, "last_tokens", (ends - 1).astype(np.int64))
        _set(request, "past_lens", np.array(past, np.int32))
        _set(request, "subsequence_begins", np.array([0, *ends], np.int32))
        _set(request, "block_indices", np.concatenate(blocks).astype(np.int32))
        _set(request, "block_indices_begins", np.array([0, *np.cumsum(used)], np.int32))
        _set(request, "max_context_len", np.array(max(lengths), np.int32))
        request.infer()
        self._backend.release_pages()
        return OpenVinoLogits(request.get_output_tensor().data)

    def copy(self, source: OpenVinoCache, from_slot: int, slot: int, length: int) -> None:
        table = self._pool.share(source._tables[from_slot], length)
        self.release(slot)
        self._tables[slot] = table

    def release(self, slot: int) -> None:
        self._pool.release(self._tables[slot])
        self._tables[slot] = []


def _set(request: Any, name: str, values: np.ndarray) -> None:
    request.set_tensor(name, ov.Tensor(values))


class OpenVinoLogits:
    """Logits in the memory that the runtime wrote them to. The next pass overwrites them."""

    def __init__(self, values: np.ndarray):
        self._values = values

    def after(self, rows: int) -> OpenVinoLogits:
        return OpenVinoLogits(self._values[rows:])

    def best(self, allowed: Mapping[int, np.ndarray]) -> list[int]:
        tokens: list[int] = self._values.argmax(-1).tolist()
        for index, mask in allowed.items():
            tokens[index] = int(np.where(mask, self._values[index], -np.inf).argmax())
        return tokens

    def row(self, index: int) -> np.ndarray:
        return self._values[index]
