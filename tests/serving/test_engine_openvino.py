"""The OpenVINO backend: threads, memory, telemetry, and every kind of Phi-3."""

from __future__ import annotations

import json
from pathlib import Path

import engine_openvino
import numpy as np
import openvino_export
import pytest
from engine import BatchingEngine
from model_files import ModelFiles
from sampling import GenerationParams

SERVING = Path(__file__).resolve().parents[2] / "scripts" / "serving"


@pytest.fixture(scope="module")
def export_dir(tiny_model_dir, scorer):
    """The tiny model's export, which `scorer` has made."""
    return openvino_export.ensure_export(ModelFiles(tiny_model_dir, tiny_model_dir), "fp32")


def test_a_rendered_and_encoded_prompt_equals_that_of_transformers(export_dir, tokenizer):
    backend = engine_openvino.OpenVinoBackend(export_dir)
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Wer? 🙂"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert backend.render(messages) == text
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert backend.encode(text) == ids
    assert backend.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True)


def test_the_attributes_are_those_of_the_transformers_backend(export_dir, tiny_model_dir):
    from engine_transformers import TransformersBackend

    openvino, torch = (
        engine_openvino.OpenVinoBackend(export_dir),
        TransformersBackend(tiny_model_dir, tiny_model_dir),
    )
    for name in ("context_window", "end_tokens", "pad_token", "bytes_per_token", "max_cache_bytes"):
        assert getattr(openvino, name) == getattr(torch, name), name


@pytest.mark.parametrize(("setting", "threads"), [(None, 1), ("3", 3)])
def test_a_small_model_has_one_thread_unless_set(export_dir, monkeypatch, setting, threads):
    monkeypatch.delenv("PHI3_THREADS", raising=False)
    if setting:
        monkeypatch.setenv("PHI3_THREADS", setting)
    assert engine_openvino._choose_threads(export_dir) == threads


def test_a_large_model_uses_every_core(export_dir, monkeypatch):
    monkeypatch.delenv("PHI3_THREADS", raising=False)
    monkeypatch.setattr(engine_openvino, "ONE_THREAD_BELOW", 0)
    monkeypatch.setattr(engine_openvino.machine, "cores_per_worker", lambda: 5)
    assert engine_openvino._choose_threads(export_dir) == 5


# --- memory -----------------------------------------------------------------------------------


def test_rows_that_have_ended_give_their_blocks_back(export_dir):
    backend = engine_openvino.OpenVinoBackend(export_dir)
    engine = BatchingEngine(backend)
    prompts = [backend.encode(f"Question {n}: " + "why? " * 20) for n in range(12)]
    engine.generate(prompts, GenerationParams(max_new_tokens=40))
    engine.close()
    used = [block for prefix in engine._prefixes._prefixes for block in prefix.cache._tables[0]]
    assert sum(uses > 0 for uses in backend.pool._uses) == len(set(used))


# --- precisions -------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_batched_answers_of_fewer_bits_equal_those_of_single_requests(tiny_model_dir, precision):
    files = ModelFiles(tiny_model_dir, tiny_model_dir)
    backend = engine_openvino.OpenVinoBackend(openvino_export.ensure_export(files, precision))
    engine = BatchingEngine(backend)
    prompts = [backend.encode(f"Question {n}: " + "why? " * (n * 7 % 60)) for n in range(12)]
    params = GenerationParams(max_new_tokens=16)
    alone = [engine.generate([prompt], params)[0] for prompt in prompts]
    assert engine.generate(prompts, params) == alone
    engine.close()


def test_keys_and_values_of_rounded_weights_take_a_byte_each(tiny_model_dir):
    files = ModelFiles(tiny_model_dir, tiny_model_dir)
    folders = [openvino_export.ensure_export(files, name) for name in ("fp16", "int8", "int4")]
    sizes = [engine_openvino.OpenVinoBackend(folder).bytes_per_token for folder in folders]
    sizes.append(engine_openvino.OpenVinoBackend(folders[1], "bf16").bytes_per_token)
    config = json.loads((tiny_model_dir / "config.json").read_text())
    heads = 2 * config["num_hidden_layers"] * config["num_key_value_heads"]
    scale_and_zero = heads * 8  # bytes
    assert sizes[1:] == [sizes[0] // 2 + scale_and_zero] * 3


def test_an_answer_in_fp16_is_like_that_in_fp32_and_takes_half_of_the_memory(tiny_model_dir):
    files = ModelFiles(tiny_model_dir, tiny_model_dir)
    logits, sizes = [], []
    for precision in ("fp32", "fp16"):
        folder = openvino_export.ensure_export(files, precision)
        sizes.append(sum(file.stat().st_size for file in (folder / "weights").iterdir()))
        backend = engine_openvino.OpenVinoBackend(folder)
        sizes.append(backend.bytes_per_token)
        logits.append(backend.make_cache(1, 8).forward(0, [[5, 6, 7, 8]], [0]).row(0).copy())
    np.testing.assert_allclose(*logits, atol=0.01 * np.abs(logits[0]).max())
    assert sizes[3] == sizes[1] / 2
    assert sizes[2] < 0.55 * sizes[0]


def test_an_answer_in_bf16_is_like_that_in_fp32(export_dir):
    prompt = [5, 6, 7, 8]
    logits = []
    for computation in ("fp32", "bf16"):
        backend = engine_openvino.OpenVinoBackend(export_dir, computation)
        logits.append(backend.make_cache(1, 8).forward(0, [prompt], [0]).row(0).copy())
    np.testing.assert_allclose(*logits, atol=0.1 * np.abs(logits[0]).max())


# --- kinds of Phi-3 -------------------------------------------------------------------------

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "original_max_position_embeddings": 48,
    "factor": 512 / 48,
    "short_factor": [1 + n / 10 for n in range(16)],
    "long_factor": [2 + n / 2 for n in range(16)],
}
VARIANTS = {
    "sliding": {"sliding_window": 20},  # Phi-3-mini-4k
    "longrope": {"original_max_position_embeddings": 48, "rope_parameters": LONGROPE},  # Phi-3.5
    "grouped": {"num_key_value_heads": 2},  # Phi-3-medium
    "partial": {  # Phi-4-mini
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
        }
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_phi3_answers_as_with_transformers(name, tiny_model_dir, tmp_path):
    import torch
    from engine_transformers import TransformersBackend
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    for file in tiny_model_dir.glob("*token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_bytes(
        (tiny_model_dir / "chat_template.jinja").read_bytes()
    )
    config = Phi3Config.from_pretrained(tiny_model_dir).to_dict() | VARIANTS[name]
    torch.manual_seed(1)
    model = Phi3ForCausalLM(Phi3Config(**config)).eval()
    model.generation_config = GenerationConfig.from_pretrained(tiny_model_dir)
    model.save_pretrained(tmp_path)
    lengths = [3, 60, 11, 40, 100, 1, 30, 47, 48, 49, 200, 8, 300, 20]
    prompts = [torch.randint(5, 480, (n,)).tolist() for n in lengths]
    generated = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        output = model.generate(ids, attention_mask=mask, max_new_tokens=40, do_sample=False)
        generated.append(output[0, len(prompt) :].tolist())
    files = ModelFiles(tmp_path, tmp_path)
    openvino = engine_openvino.OpenVinoBackend(openvino_export.ensure_export(files, "fp32"))
    for backend in (openvino, TransformersBackend(tmp_path, tmp_path)):
        backend.prefill_chunk = 32  # some prompts are run in chunks
        engine = BatchingEngine(backend)
        expected = [backend.decode([t for t in ids if t not in (0, 4)]) for ids in generated]
        for _ in range(2):  # the second time, the longer prompts begin with known tokens
            answers = engine.generate(prompts, GenerationParams(max_new_tokens=40))
            assert [answer.text for answer in answers] == expected
        assert engine._prefixes.tokens > 0
        engine.close()
