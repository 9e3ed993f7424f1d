"""Measures the speed of training on a CPU: the comparison of train_gpu.py with a small model.

python tests/benchmarks/train_cpu.py --json bench/train_cpu.json
"""

from __future__ import annotations

import sys

import train_gpu

SIZE = train_gpu.Size(
    # As in Phi-3-mini: the head's share of the weights, and 64 channels per attention head.
    shape={
        "vocab_size": 1024,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
        "original_max_position_embeddings": 256,
    },
    sequence=256,
    seconds=2,
    rounds=3,
    limits={("best", train_gpu.TUTORIALS_FLOAT32): 1.0},
)

if __name__ == "__main__":
    sys.exit(train_gpu.main(size=SIZE, device="cpu"))
