"""A GGUF file goes in, is fine-tuned, and comes out as a GGUF file."""

from __future__ import annotations

import json

import pytest
import yaml

from phi3_ops.take_home import gguf_file
from phi3_ops.take_home.source import load_source
from phi3_ops.training.local import finetune_locally
from tiny_gguf import write_llama

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RECIPE = {
    "model": "smollm2",
    "seed": 3,
    "samples": 0,
    "trainer": {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "max_length": 128,
        "save_steps": 100,
        "logging_steps": 1,
        "eval_strategy": "no",
        "gradient_checkpointing": False,
    },
}


def test_from_gguf_to_gguf(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3_CACHE", str(tmp_path / "cache"))
    write_llama(tmp_path / "m.gguf", quantization="Q8_0")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{json.dumps({'messages': turns})}\n" * 4)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    metrics = finetune_locally(
        rows, rows, tmp_path / "out", recipe=str(recipe), model=str(tmp_path / "m.gguf")
    )
    assert metrics.steps == 2 and metrics.eval_loss < metrics.base_eval_loss
    tuned = load_source(str(tmp_path / "out"))
    written = gguf_file.write_gguf(tuned, tmp_path / "tuned.gguf", "q8_0", lambda done, total: None)
    assert set(written.types) == {"Q8_0"}
