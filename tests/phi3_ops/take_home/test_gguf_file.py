"""GGUF files: their fields, their tensors, and their answers in llama.cpp."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from phi3_ops.errors import OpsError
from phi3_ops.take_home import gguf_file
from phi3_ops.take_home.gguf_file import check_settings, limitations, model_name, write_gguf
from phi3_ops.take_home.llama_server import llama_server
from phi3_ops.take_home.vocabulary import make_vocabulary
from tiny_longrope import ORIGINAL_WINDOW, WINDOW

SHORT = "Who founded Microsoft?"
LONG = " ".join(f"{SHORT} {number}." for number in range(120))


def read(source, path, quantization):
    """Write a model, and return the file's fields, the file's tensors, and what became of them."""
    from gguf import GGUFReader

    written = write_gguf(source, path, quantization, lambda done, total: None)
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: tensor for tensor in reader.tensors}, written


def test_the_fields(tiny, tmp_path):
    fields, tensors, written = read(tiny, tmp_path / "m.gguf", "f16")
    assert fields["general.architecture"] == "phi3"
    assert fields["general.file_type"] == 1
    assert fields["phi3.context_length"] == fields["phi3.rope.scaling.original_context_length"]
    assert fields["phi3.attention.sliding_window"] == 0
    assert fields["tokenizer.ggml.pre"] == "smollm"
    assert fields["tokenizer.ggml.eot_token_id"] == tiny.tokenizer.convert_tokens_to_ids("<|end|>")
    assert not fields["tokenizer.ggml.add_bos_token"]
    assert "output.weight" not in tensors  # it is tied
    assert sum(written.types.values()) == 1 + 4 * tiny.config.num_hidden_layers
    weight = tiny.weights.read("model.layers.1.mlp.down_proj.weight")
    assert np.array_equal(tensors["blk.1.ffn_down.weight"].data, weight.astype(np.float16))


def test_the_name_decides_about_spaces_in_llama_cpp(tiny, longrope):
    strips, keeps = make_vocabulary(longrope), make_vocabulary(tiny)
    assert model_name("Mine", strips) == "Phi-3 Mine"
    assert model_name("My Phi-3.5", strips) == "My Phi-3.5"
    assert model_name("my-phi3, a PHI-3", keeps) == "my-phi 3, a PHI 3"
    without_tokens = replace(strips, tokens=["<s>"])
    assert model_name("phi3", without_tokens) == "phi 3"


def test_longrope(longrope, tmp_path):
    fields, tensors, _ = read(longrope, tmp_path / "m.gguf", "bf16")
    assert fields["phi3.rope.scaling.original_context_length"] == ORIGINAL_WINDOW
    assert fields["phi3.context_length"] == WINDOW
    assert fields["phi3.rope.dimension_count"] == 12
    assert fields["phi3.rope.scaling.attn_factor"] == pytest.approx(longrope.attention_factor)
    assert tensors["rope_factors_long.weight"].data.tolist() == longrope.rope["long_factor"]
    short = np.array(longrope.rope["short_factor"], dtype=np.float32)
    assert np.array_equal(tensors["rope_factors_short.weight"].data, short)
    assert tensors["output.weight"].tensor_type.name == "BF16"
    assert "long factors" in limitations(longrope)[0]


@pytest.mark.parametrize("quantization", ["f32", "f16", "bf16", "q8_0", "q4_k_m"])
def test_a_file_can_be_read_back(tiny, tmp_path, quantization):
    """The package gguf undoes the quantization independently of llama.cpp."""
    import gguf

    _, tensors, _ = read(tiny, tmp_path / "m.gguf", quantization)
    tensor = tensors["blk.0.attn_qkv.weight"]
    weight = tiny.weights.read("model.layers.0.self_attn.qkv_proj.weight")
    restored = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
    error = np.abs(restored - weight).mean() / np.abs(weight).mean()
    assert error <= {"f32": 0, "f16": 1e-3, "bf16": 4e-3, "q8_0": 0.02, "q4_k_m": 0.1}[quantization]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act .* is gelu"),
        ({"head_dim": 48}, "head_dim .* is 48"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "the type yarn"),
    ],
)
def test_settings_that_llama_cpp_cannot_run(tiny, change, message):
    with pytest.raises(OpsError, match=message):
        check_settings(replace(tiny, config=changed(tiny.config, **change)))


def changed(config, **changes):
    import copy

    config = copy.deepcopy(config)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def test_factors_of_another_length(longrope):
    rope = {**longrope.rope, "long_factor": [1.0]}
    source = replace(longrope, config=changed(longrope.config, rope_parameters=rope))
    with pytest.raises(OpsError, match="another length. Both need 6"):
        check_settings(source)


def test_a_sliding_window_is_noted(tiny):
    source = replace(tiny, config=changed(tiny.config, sliding_window=100))
    assert "sliding window of 100 tokens" in limitations(source)[0]
    assert limitations(tiny) == []


def test_a_value_that_float16_cannot_store(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_file, "LARGEST_F16", 0.5)
    with pytest.raises(OpsError, match="float16 cannot store. Use f32 or bf16"):
        write_gguf(tiny, tmp_path / "m.gguf", "f16", lambda done, total: None)


def test_a_damaged_value(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(type(tiny.weights), "read", lambda self, name: np.array([np.nan], "f4"))
    with pytest.raises(OpsError, match="not a number"):
        write_gguf(tiny, tmp_path / "m.gguf", "f32", lambda done, total: None)


def test_weights_that_do_not_belong_to_a_phi3(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(type(tiny), "tensor_names", ["model.layers.0.mlp.router.weight"])
    with pytest.raises(OpsError, match="router.weight. A Phi-3 does not have it"):
        write_gguf(tiny, tmp_path / "m.gguf", "f32", lambda done, total: None)
    monkeypatch.setattr(type(tiny), "tensor_names", ["model.norm.weight"])
    with pytest.raises(OpsError, match="lacks weights of a Phi-3, such as blk.0.attn_norm"):
        write_gguf(tiny, tmp_path / "m.gguf", "f32", lambda done, total: None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("question", "tokens"), [(SHORT, ORIGINAL_WINDOW), (LONG, WINDOW)])
def test_longrope_answers_as_in_transformers(longrope, tmp_path, question, tokens):
    """llama.cpp uses the short factors in a window of the original size, and else the long ones."""
    from transformers import AutoModelForCausalLM

    path = tmp_path / "m.gguf"
    write_gguf(longrope, path, "f32", lambda done, total: None)
    tokenizer = longrope.tokenizer
    chat = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert (len(ids) > ORIGINAL_WINDOW) == (question is LONG)
    model = AutoModelForCausalLM.from_pretrained(longrope.folder, dtype="float32").eval()
    expected = logprobs_of(model, ids)
    with llama_server(path, tokens=tokens, threads=1) as server:
        request = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": 5}
        answer = server.post("/completion", request)
    actual = {
        entry["id"]: entry["logprob"]
        for entry in answer["completion_probabilities"][0]["top_logprobs"]
    }
    assert actual == pytest.approx({token: expected[token] for token in actual}, abs=0.05)
    assert next(iter(actual)) == max(expected, key=expected.get)


def logprobs_of(model, ids):
    """Return the log probability of each next token in transformers."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
    return dict(enumerate(torch.log_softmax(logits, -1).tolist()))
