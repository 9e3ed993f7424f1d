"""What the transformers engine gets out of a GPU: tokens/s at 1, 16 and 64 clients.

    python tests/benchmarks/serving_gpu.py --json serving_gpu.json
    python tests/benchmarks/serving_gpu.py --config tiny --device cpu   # to try the script out

Stands alone but for scripts/serving: needs torch and transformers, no model and no network. The
model has Phi-3-mini's true size and random weights; speed does not depend on what they are.
Peers: transformers' own `generate`, one request after another (what MLflow's pyfunc does), and the
card's limit: a step has to read all weights, and the keys and values of every row, once. The
memory's bandwidth is measured here, by copying.
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
from generation import GenerationParams
from transformers import Phi3Config, Phi3ForCausalLM

from bench_rows import Row, report

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
FAST = 1.5  # at 16 clients, ours over one by one: less is a failure


class NoText:
    """A tokenizer for random weights, which say nothing: no end token, no text."""

    chat_template = "none"
    pad_token_id = 0
    eos_token = None

    def get_vocab(self) -> dict[str, int]:
        return {}

    def decode(self, ids: list[int], **_: Any) -> str:
        return ""


def make_model(config: str, device: str) -> Any:
    settings = Phi3Config(max_position_embeddings=4096, **CONFIGS[config])
    settings.pad_token_id = settings.bos_token_id = 0
    settings.eos_token_id = None
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.device(device):
            model = Phi3ForCausalLM(settings).eval()
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def one_by_one(model: Any, prompt: list[int], new: int, seconds: float) -> float:
    """Tokens/s of transformers' `generate`."""
    ids = torch.tensor([prompt], device=model.device)
    settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
    model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        count += new
    return count / (time.perf_counter() - start)


def batched(engine: BatchingEngine, prompt: list[int], new: int, clients: int, s: float) -> float:
    """Tokens/s of so many clients that each ask again as soon as they are answered."""
    params = GenerationParams(max_new_tokens=new)
    engine.generate([prompt] * clients, params)
    end = time.perf_counter() + s

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
    """Bytes/s that the memory reads and writes."""
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


def limit(backend: TransformersBackend, speed: float, rows: int, tokens: int) -> float:
    """Tokens/s where nothing but reading weights, keys and values took time."""
    weights = sum(p.numel() * p.element_size() for p in backend.model.parameters())
    return rows * speed / (weights + rows * tokens * backend.bytes_per_token)


def measure(args: argparse.Namespace) -> list[Row]:
    model = make_model(args.config, args.device)
    backend = TransformersBackend.of(model, NoText())
    backend.end_tokens = frozenset()
    speed = bandwidth(args.device)
    prompt = torch.randint(1, 1000, (args.prompt,)).tolist()
    alone = one_by_one(model, prompt, args.new, args.seconds)
    engine = BatchingEngine(backend)
    rows = []
    for clients in CLIENTS:
        found = batched(engine, prompt, args.new, clients, args.seconds)
        name = f"{args.config}, {clients} clients"
        wanted = FAST if clients == 16 else None
        rows.append(Row(name, "tokens/s", found, alone, "generate, one by one", wanted, more=True))
        most = limit(backend, speed, min(clients, backend.max_rows), args.prompt + args.new // 2)
        rows.append(Row(name, "tokens/s", found, most, "the memory's limit", more=True))
    engine.close()
    print(f"memory: {speed / 1e9:.0f} GB/s, copying")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--config", choices=CONFIGS, help="by default what the device can hold")
    parser.add_argument("--device", choices=["cuda", "cpu"])
    parser.add_argument("--prompt", type=int, default=128, help="tokens (%(default)s)")
    parser.add_argument("--new", type=int, default=128, help="tokens (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="for each figure (%(default)s)")
    args = parser.parse_args()
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    args.config = args.config or ("phi3-mini" if args.device == "cuda" else "tiny")
    rows = measure(args)
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
