"""llama.cpp's own HTTP server on one GGUF file, as a benchmark's peer.

    python tests/support/peers/llama_cpp_server.py MODEL.gguf PORT THREADS SLOTS

Each slot has room for 1,280 tokens, and keeps those of its last request. Keys and values are float16,
which is llama.cpp's default.
"""

from __future__ import annotations

import signal
import sys

import xllamacpp

TOKENS_PER_SLOT = 1280


def main(model: str, port: str, threads: str, slots: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.port = int(port)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.n_parallel = int(slots)
    params.n_ctx = TOKENS_PER_SLOT * int(slots)
    params.cache_ram_mib = 0  # copies of the slots' prompts, which would only take memory here
    params.cont_batching = params.cache_prompt = True
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
