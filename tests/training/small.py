"""A Phi-3 that trains in a second, for the tests that train more than once."""

import json
import subprocess
import sys
from pathlib import Path

from training_run import environment

RECIPE = """
model: tiny
seed: 3
samples: 0
tiny: {vocab_size: 400, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2,
  num_attention_heads: 2, max_position_embeddings: 64, tie_word_embeddings: true}
trainer: {num_train_epochs: 20, per_device_train_batch_size: 2, gradient_accumulation_steps: 2,
  learning_rate: 5.0e-3, warmup_steps: 5, max_length: 64, save_steps: 7, logging_steps: 4,
  eval_strategy: "no", gradient_checkpointing: false}
"""
SECTIONS = (
    "fsdp", "lora", "samples", "max_cut_share", "trained_layers", "rows_per_sequence", "attention",
)  # fmt: skip


def write_recipe(path: Path, **settings: object) -> Path:
    """Write the recipe; a setting goes into its `trainer` section, `tiny_…` into `tiny`."""
    import yaml

    recipe = yaml.safe_load(RECIPE)
    for name, value in settings.items():
        if name.startswith("tiny_"):
            recipe["tiny"][name.removeprefix("tiny_")] = value
        elif name in SECTIONS:
            recipe[name] = value
        else:
            recipe["trainer"][name] = value
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def run_two_processes(
    script: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess:
    """Run a script in two processes with torchrun, on a free port."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*line, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment() | {"OMP_NUM_THREADS": "1"} | variables,
        check=False,
    )


def read_weights(out: Path) -> dict:
    """Return the trained model's weights."""
    from safetensors.torch import load_file

    return load_file(out / "model" / "model.safetensors")


def read_metrics(out: Path) -> dict:
    """Return metrics.json."""
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))
