"""Measures the tokens per second of the transformers engine on a GPU, with 1, 16 and 64 clients.

    python tests/benchmarks/serving_gpu.py --json serving_gpu.json
    python tests/benchmarks/serving_gpu.py --config tiny --device cpu   # to try the script

Needs only scripts/serving, torch and transformers: no model and no network. The model has the size
of Phi-3-mini and random weights, because the speed does not depend on their values. Its tokenizer is
the tests' own. There are two peers: transformers' `generate`, one request at a time (as in MLflow's
pyfunc), and the limit of the GPU: each step must read all weights, and the keys and values of every
row, once. The bandwidth of the memory is measured by copying.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "serving"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import torch
from engine import BatchingEngine
from engine_transformers import TransformersBackend
from sampling import GenerationParams
from transformers import Phi3Config, Phi3ForCausalLM

from bench_rows import Row, report
from tiny_model import _tokenizer

CLIENTS = (1, 16, 64)
CONFIGS: dict[str, dict[str, Any]] = {
    "phi3-mini": {},  # Phi3Config's defaults are Phi-3-mini's
    "tiny": {
        "vocab_size": 1300,
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
}
LIMIT_16_CLIENTS = 1.5  # our speed divided by that of `generate`, at least


def make_model(config: str, device: str) -> Any:
    settings = Phi3Config(max_position_embeddings=4096, **CONFIGS[config])
    settings.pad_token_id = settings.bos_token_id = 0
    settings.eos_token_id = None
    torch.manual_seed(0)
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.device(device):
            model = Phi3ForCausalLM(settings).eval()
    finally:
        torch.set_default_dtype(default_dtype)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def one_by_one(model: Any, prompt: list[int], new: int, seconds: float) -> float:
    """Return the tokens per second of transformers' `generate`."""
    ids = torch.tensor([prompt], device=model.device)
    settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
    model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        count += new
    return count / (time.perf_counter() - start)


def batched(
    engine: BatchingEngine, prompt: list[int], new: int, clients: int, seconds: float
) -> float:
    """Return the tokens per second of all clients. Each sends its next request after an answer."""
    params = GenerationParams(max_new_tokens=new)
    engine.generate([prompt] * clients, params)
    end = time.perf_counter() + seconds

    def work(_: int) -> int:
        count = 0
        while time.perf_counter() < end:
            count += engine.generate([prompt], params)[0].tokens
        return count

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        count = sum(pool.map(work, range(clients)))
    return count / (time.perf_counter() - start)


def bandwidth(device: str) -> float:
    """Return the bytes per second that the memory reads and writes."""
    size = 2**30 if device == "cuda" else 2**26
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copies(count: int) -> float:
        _wait(device)
        start = time.perf_counter()
        for _ in range(count):
            target.copy_(source)
        _wait(device)
        return time.perf_counter() - start

    copies(3)
    return 2 * size * 20 / copies(20)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def memory_limit(
    backend: TransformersBackend, bytes_per_second: float, rows: int, tokens: int
) -> float:
    """Return the tokens per second if only reading weights, keys and values took time."""
    weights = sum(p.numel() * p.element_size() for p in backend.model.parameters())
    return rows * bytes_per_second / (weights + rows * tokens * backend.bytes_per_token)


def measure(args: argparse.Namespace) -> list[Row]:
    model = make_model(args.config, args.device)
    backend = TransformersBackend.of(model, _tokenizer())
    backend.end_tokens = frozenset()
    bytes_per_second = bandwidth(args.device)
    prompt = torch.randint(1, 1000, (args.prompt,)).tolist()
    alone = one_by_one(model, prompt, args.new, args.seconds)
    engine = BatchingEngine(backend)
    rows = []
    for clients in CLIENTS:
        speed = batched(engine, prompt, args.new, clients, args.seconds)
        name = f"{args.config}, {clients} clients"
        limit_of_row = LIMIT_16_CLIENTS if clients == 16 else None
        rows.append(
            Row(name, "tokens/s", speed, alone, "generate, one by one", limit_of_row, more=True)
        )
        concurrent, tokens = min(clients, backend.max_rows), args.prompt + args.new // 2
        limit = memory_limit(backend, bytes_per_second, concurrent, tokens)
        rows.append(Row(name, "tokens/s", speed, limit, "the memory's limit", more=True))
    engine.close()
    print(f"memory: {bytes_per_second / 1e9:.0f} GB/s, measured by copying")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    parser.add_argument(
        "--config",
        choices=CONFIGS,
        help="size of the model (default: phi3-mini on a GPU, tiny on a CPU)",
    )
    parser.add_argument("--device", choices=["cuda", "cpu"])
    parser.add_argument(
        "--prompt", type=int, default=128, help="prompt tokens (default: %(default)s)"
    )
    parser.add_argument("--new", type=int, default=128, help="answer tokens (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=10,
        help="duration of each measurement (default: %(default)s)",
    )
    args = parser.parse_args()
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    args.config = args.config or ("phi3-mini" if args.device == "cuda" else "tiny")
    rows = measure(args)
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
