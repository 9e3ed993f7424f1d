"""Serve a GGUF file with llama.cpp's own server, which the package xllamacpp brings.

    python serve_gguf.py FILE SLOTS TOKENS THREADS

The server listens on a free port of 127.0.0.1, and prints its address in a line of standard output. Its
key is in PHI3_LLAMA_KEY. It ends when its standard input is closed. The script imports nothing of this
package, so that it starts quickly.
"""

from __future__ import annotations

import os
import sys


def main(file: str, slots: str, tokens: str, threads: str) -> None:
    """Serve until standard input is closed.

    Args:
        file: the GGUF file.
        slots: number of requests that are answered at once.
        tokens: context window of each slot in tokens.
        threads: number of threads.
    """
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.port = 0
    parameters.api_keys = [os.environ.pop("PHI3_LLAMA_KEY")]
    parameters.n_parallel, parameters.n_ctx = int(slots), int(slots) * int(tokens)
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = int(threads)
    parameters.use_jinja, parameters.warmup, parameters.verbosity = True, False, 0
    parameters.cache_ram_mib = 0  # copies of prompts, which only take memory here
    server = xllamacpp.Server(parameters)
    os.write(1, f"listening on {server.listening_address}\n".encode())
    sys.stdin.read()
    os._exit(0)  # the server's threads do not end by themselves


if __name__ == "__main__":
    main(*sys.argv[1:])
