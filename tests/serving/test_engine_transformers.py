"""The transformers backend: its tokenizer, its end tokens, its attributes, and its cache."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import engine_transformers
import numpy as np
import pytest
import score
import torch
from engine_transformers import (
    TransformersBackend,
    find_end_tokens,
    find_pad_token,
    find_short_window,
    load_tokenizer,
)

TRAINING = Path(__file__).resolve().parents[2] / "scripts" / "training"


class Vocabulary:
    """The part of a tokenizer that `find_end_tokens` uses."""

    def __init__(self, eos_token=None, **ids):
        self.eos_token = eos_token
        self._ids = ids

    def get_vocab(self):
        return self._ids


PHI3 = {"<|end|>": 7, "<|endoftext|>": 0, "hello": 3}


@pytest.mark.parametrize(
    ("tokenizer", "configured", "expected"),
    [
        (Vocabulary("<|endoftext|>", **PHI3), None, [0, 7]),
        (Vocabulary("<|endoftext|>", **PHI3), 0, [0, 7]),
        (Vocabulary("<|endoftext|>", **PHI3), [7, 0], [7, 0]),
        (Vocabulary("<|end|>", **PHI3), [1, 0], [1, 0, 7]),
        (Vocabulary("</s>", **{"</s>": 2}), 5, [5, 2]),
        (Vocabulary(), None, []),
    ],
)
def test_training_and_serving_agree_on_the_end_tokens(tokenizer, configured, expected, monkeypatch):
    """The two folders are uploaded alone, so each has a copy of the function."""
    monkeypatch.syspath_prepend(TRAINING)
    outputs = runpy.run_path(str(TRAINING / "outputs.py"))
    assert find_end_tokens(tokenizer, configured) == expected
    assert outputs["find_end_tokens"](tokenizer, configured) == expected


@pytest.mark.parametrize(("pad_token_id", "expected"), [(None, 3), (0, 0), (9, 9)])
def test_the_pad_token_is_an_end_token_if_the_tokenizer_has_none(pad_token_id, expected):
    tokenizer = SimpleNamespace(pad_token_id=pad_token_id)
    assert find_pad_token(tokenizer, [7, 3]) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"rope_parameters": {"rope_type": "default"}}, None),
        ({"rope_scaling": None, "original_max_position_embeddings": 48}, None),
        (
            {"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 48}},
            48,
        ),
        (
            {"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 4096},
            4096,
        ),
    ],
)
def test_only_longrope_models_change_their_rotary_factors(config, expected):
    assert find_short_window(SimpleNamespace(**config)) == expected


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path, tiny_model_dir, monkeypatch):
    monkeypatch.setenv("PHI3_ENGINE", "transformers")
    for file in tiny_model_dir.iterdir():
        if file.suffix != ".jinja":
            (tmp_path / file.name).symlink_to(file)
    for load in (load_tokenizer, score.load):
        with pytest.raises(ValueError, match="no chat template"):
            load(tmp_path)


# --- a backend --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    return model, load_tokenizer(tiny_model_dir)


def test_a_loaded_model_becomes_a_backend(loaded):
    model, tokenizer = loaded
    backend = TransformersBackend.of(model, tokenizer)
    config = model.config
    assert not model.training
    assert backend.context_window == config.max_position_embeddings
    assert backend.end_tokens == set(find_end_tokens(tokenizer, None))
    assert backend.bytes_per_token == 2 * config.num_hidden_layers * config.hidden_size * 4
    assert (backend.max_rows, backend.prefill_chunk) == (16, 512)
    assert backend.rotary_key(1) == backend.rotary_key(10_000)


def test_a_gpu_runs_more_rows_and_uses_its_free_memory(loaded, monkeypatch):
    monkeypatch.delenv("PHI3_CACHE_MIB", raising=False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 5000))
    backend = TransformersBackend.of(*loaded)
    backend._limit_to_gpu()
    assert (backend.max_rows, backend.prefill_chunk) == (64, 4096)
    assert backend.max_cache_bytes == 800


def test_a_longrope_model_has_other_rotary_factors_beyond_its_short_window(loaded, monkeypatch):
    monkeypatch.setattr(engine_transformers, "find_short_window", lambda config: 48)
    backend = TransformersBackend.of(*loaded)
    assert backend.rotary_key(48) == backend.rotary_key(1)
    assert backend.rotary_key(49) != backend.rotary_key(48)


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_computes_in_bf16_only_if_it_has_it(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert engine_transformers._choose_dtype("cuda") == getattr(torch, expected)
    assert engine_transformers._choose_dtype("cpu") == torch.float32


# --- its cache --------------------------------------------------------------------------------

PROMPT = [10, 11, 12, 13, 14, 15]


def test_the_logits_are_those_of_the_model(loaded):
    model, tokenizer = loaded
    backend = TransformersBackend.of(model, tokenizer)
    with torch.inference_mode():
        expected = model(torch.tensor([PROMPT])).logits[0, -1]
    logits = backend.make_cache(1, 16).forward(0, [PROMPT], [0])
    best = int(expected.argmax())
    assert logits.best({}) == [best]
    allowed = np.ones(len(expected), bool)
    allowed[best] = False
    assert logits.best({0: allowed}) == [int(np.where(allowed, expected, -np.inf).argmax())]
    np.testing.assert_allclose(logits.row(0), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_rows_of_different_lengths_chunks_and_copies_have_the_same_logits(loaded):
    backend = TransformersBackend.of(*loaded)
    expected = backend.make_cache(1, 16).forward(0, [PROMPT], [0]).row(0)

    padded = backend.make_cache(4, 16)
    logits = padded.forward(1, [[20, 21, 22, 23, 24, 25, 26, 27], PROMPT], [0, 0])
    np.testing.assert_allclose(logits.row(1), expected, rtol=1e-4, atol=1e-4)

    chunked = backend.make_cache(1, 16)
    chunked.forward(0, [PROMPT[:4]], [0])
    np.testing.assert_allclose(
        chunked.forward(0, [PROMPT[4:]], [4]).row(0), expected, rtol=1e-4, atol=1e-4
    )

    copied = backend.make_cache(2, 8)
    copied.copy(padded, 2, 1, 5)
    np.testing.assert_allclose(
        copied.forward(1, [PROMPT[5:]], [5]).row(0), expected, rtol=1e-4, atol=1e-4
    )


def test_the_mask_leaves_out_later_tokens_and_those_before_the_sliding_window(loaded):
    backend = TransformersBackend.of(*loaded)
    cache = backend.make_cache(1, 8)
    positions = torch.tensor([[2, 3]])
    assert backend.model.config._attn_implementation == "sdpa"
    mask = cache._attention_mask(positions, 5)
    assert mask[0, 0].tolist() == [[True, True, True, False, False], [True] * 4 + [False]]
    backend.sliding_window = 2
    mask = cache._attention_mask(positions, 5)
    assert mask[0, 0].tolist() == [
        [False, True, True, False, False],
        [False, False, True, True, False],
    ]
