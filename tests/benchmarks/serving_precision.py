"""Measures what the precisions of serving on a CPU cost in quality, on the real model.

    python tests/benchmarks/serving_precision.py --json bench/serving_precision.json

The chats are general.jsonl and one question per fact of facts.jsonl, in scripts/phi3_ops/samples. The
model was trained on neither. Each precision answers them greedily, and the scores of flows/eval compare
the answers with the references. The loss is that of the references (nats per token). The differences
from fp32 are paired and have bootstrap intervals (95 %) over the chats.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts" / "serving"), str(ROOT / "scripts"), str(ROOT / "tools")]

from phi3_ops.comparison.paired_stats import bootstrap_interval  # noqa: E402
from phi3_tools.evaluation import line_scores  # noqa: E402

# Precision of the weights, and of the computation.
SETTINGS = (
    ("fp32", "fp32"),
    ("fp16", "fp32"),
    ("int8", "fp32"),
    ("int4", "fp32"),
    ("int8", "bf16"),
    ("int4", "bf16"),
)
SAMPLES = ROOT / "scripts" / "phi3_ops" / "samples"
SCORES = ("token_f1", "rouge_l", "chrf")
BATCH, ANSWER_TOKENS, CACHE_LENGTH = 16, 48, 512


def read_chats() -> list[list[dict[str, str]]]:
    """Return the general chats, and the first chat of each fact. The last message is the reference."""
    chats, facts = [], set()
    for name in ("general.jsonl", "facts.jsonl"):
        for line in (SAMPLES / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row.get("fact") is None or row["fact"] not in facts:
                facts.add(row.get("fact"))
                chats.append(row["messages"])
    return chats


def losses_of(backend: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> Any:
    """Return the mean loss of each answer, which is fed to the model token by token."""
    losses = np.zeros(len(prompts))
    for start in range(0, len(prompts), BATCH):
        rows = range(start, min(start + BATCH, len(prompts)))
        cache = backend.make_cache(len(rows), CACHE_LENGTH)
        past = [len(prompts[row]) for row in rows]
        logits = cache.forward(0, [prompts[row] for row in rows], [0] * len(rows))
        for step in range(max(len(answers[row]) for row in rows)):
            tokens = []
            for index, row in enumerate(rows):
                answer = answers[row]
                if step < len(answer):
                    losses[row] += _loss(logits.row(index), answer[step]) / len(answer)
                tokens.append([answer[min(step, len(answer) - 1)]])
            logits = cache.forward(0, tokens, [length + step for length in past])
    return losses


def _loss(logits: np.ndarray, token: int) -> float:
    shifted = logits.astype(np.float64) - logits.max()
    return math.log(np.exp(shifted).sum()) - float(shifted[token])


def answers_of(backend: Any, prompts: Sequence[list[int]]) -> list[str]:
    """Return greedy answers, batched as the endpoint batches them."""
    from engine import BatchingEngine
    from sampling import GenerationParams

    engine = BatchingEngine(backend)
    completions = engine.generate(prompts, GenerationParams(max_new_tokens=ANSWER_TOKENS))
    engine.close()
    return [completion.text for completion in completions]


def measure(folder: Path, computation: str) -> tuple[dict[str, Any], list[str]]:
    """Return one value per chat for each figure, and the answers."""
    from engine_openvino import OpenVinoBackend

    chats = read_chats()
    backend = OpenVinoBackend(folder, computation)
    prompts = [backend.encode_chat(chat[:-1]) for chat in chats]
    references = [chat[-1]["content"] for chat in chats]
    answers = answers_of(backend, prompts)
    scores = [line_scores(answer, truth) for answer, truth in zip(answers, references)]
    values = {name: np.array([score[name] for score in scores]) for name in SCORES}
    values["loss"] = losses_of(backend, prompts, [backend.encode(text) for text in references])
    return values, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2", help="name or folder (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from model_files import find_model
    from openvino_export import ensure_export

    from phi3_ops.models import resolve_model

    files = find_model(Path(resolve_model(args.model)))
    rows: list[dict[str, Any]] = []
    reference: tuple[dict[str, Any], list[str]] | None = None
    print("| weights | computation | figure | value | difference from fp32 |")
    print("| --- | --- | --- | --- | --- |")
    for weights, computation in SETTINGS:
        values, answers = measure(ensure_export(files, weights), computation)
        reference = reference or (values, answers)
        values["equal answers"] = np.array([a == b for a, b in zip(answers, reference[1])], float)
        for figure, per_chat in values.items():
            base = reference[0][figure]
            low, high = bootstrap_interval(per_chat - base)
            mean, difference = float(per_chat.mean()), float((per_chat - base).mean())
            interval = f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"
            print(f"| {weights} | {computation} | {figure} | {mean:.3f} | {interval} |", flush=True)
            row = {"weights": weights, "computation": computation, "figure": figure}
            rows.append({**row, "value": mean, "difference": difference, "low": low, "high": high})
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
