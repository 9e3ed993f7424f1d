"""The conversion of a GGUF file: the same logits and answers to the last bit, or a clear refusal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import gguf_header
import gguf_model
import gguf_weights
import pytest
from gguf_model import convert
from inputs import TrainError
from training_run import TRAINING

from tiny_gguf import SMOLLM2_TEMPLATE, TEXTS, write_llama, write_phi3
from tiny_longrope import build_tiny_longrope
from tiny_model import build_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore")
CONVERSATION = [
    {"role": "user", "content": "Who founded Microsoft?"},
    {"role": "assistant", "content": "Bill Gates\n\n1. and Paul Allen."},
    {"role": "user", "content": "When?"},
]
LONGROPE = {
    "max_position_embeddings": 256,
    "original_max_position_embeddings": 64,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0],
        "long_factor": [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    },
}


def load(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    assert type(model).__name__ == "Phi3ForCausalLM"
    return model, AutoTokenizer.from_pretrained(folder)


def assert_equal(original, converted, tokens=100):
    """Compare the logits of one forward, and greedy answers, bit by bit."""
    import torch

    torch.manual_seed(1)
    ids = torch.randint(3, original.config.vocab_size, (2, tokens))
    with torch.no_grad():
        difference = (original(ids).logits - converted(ids).logits).abs().max()
        assert float(difference) == 0.0
        answers = [
            model.generate(ids[:, :20], max_new_tokens=20, do_sample=False)
            for model in (original, converted)
        ]
    assert torch.equal(*answers)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "converted"


class TestSameModel:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"tied": False},
            {"num_key_value_heads": 4},
            {"head_dim": 32},
            {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        ],
        ids=str,
    )
    def test_a_llama(self, tmp_path, target, changes):
        original = write_llama(tmp_path / "m.gguf", **changes)
        convert(tmp_path / "m.gguf", target, source="a test")
        assert_equal(original, load(target)[0])

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"tie_word_embeddings": True},
            {"sliding_window": 30},
            LONGROPE,
            {
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e4,
                    "partial_rotary_factor": 0.5,
                }
            },
        ],
        ids=["plain", "tied", "sliding window", "longrope", "partial rotary"],
    )
    def test_a_phi3(self, tmp_path, target, changes):
        original = write_phi3(tmp_path / "m.gguf", **changes)
        convert(tmp_path / "m.gguf", target, source="a test")
        converted, _ = load(target)
        assert_equal(original, converted)
        assert converted.config.sliding_window == changes.get("sliding_window")

    @pytest.mark.parametrize("quantization", ["F16", "BF16", "Q8_0", "Q4_1"])
    def test_a_quantized_llama_is_what_transformers_reads(self, tmp_path, target, quantization):
        import torch
        from transformers import AutoModelForCausalLM

        write_llama(tmp_path / "m.gguf", quantization=quantization)
        convert(tmp_path / "m.gguf", target, source="a test")
        original = AutoModelForCausalLM.from_pretrained(
            tmp_path, gguf_file="m.gguf", dtype=torch.float32
        )
        assert_equal(original.eval(), load(target)[0])

    def test_weights_in_several_files(self, tmp_path, target, monkeypatch):
        monkeypatch.setattr(gguf_weights, "SHARD_BYTES", 100_000)
        original = write_llama(tmp_path / "m.gguf", tied=False)
        convert(tmp_path / "m.gguf", target, source="a test")
        assert len(list(target.glob("model-*-of-*.safetensors"))) > 2
        assert_equal(original, load(target)[0])

    def test_a_factor_of_attention_that_is_not_the_usual_one_is_kept(self, tmp_path, target):
        field = "phi3.rope.scaling.attn_factor"
        write_phi3(tmp_path / "m.gguf", extra={field: 1.75}, **LONGROPE)
        convert(tmp_path / "m.gguf", target, source="a test")
        assert load(target)[0].config.rope_parameters["attention_factor"] == 1.75


class TestTokenizer:
    @pytest.fixture
    def tokenizer(self, tmp_path, target):
        write_llama(tmp_path / "m.gguf")
        # A file of another model in the same folder is not read.
        (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 7, "bos_token": "x"}')
        convert(tmp_path / "m.gguf", target, source="a test")
        return load(target)[1]

    @pytest.mark.parametrize("prompt", [False, True])
    @pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be brief."}]])
    def test_the_marked_template_gives_the_same_ids(self, tokenizer, prompt, system):
        ids = [
            tokenizer.apply_chat_template(
                [*system, *CONVERSATION], add_generation_prompt=prompt, chat_template=template
            )["input_ids"]
            for template in (None, SMOLLM2_TEMPLATE)
        ]
        assert ids[0] == ids[1]
        assert "{% generation %}" in tokenizer.chat_template

    def test_the_answers_and_their_ends_are_marked(self, tokenizer):
        import templates

        row = {"messages": CONVERSATION[:2]}
        spans = templates.mask_spans(tokenizer, row, tokenizer.chat_template)
        trained = [text for text, is_trained in spans if is_trained]
        assert trained == ["Bill Gates\n\n1. and Paul Allen.<|im_end|>"]

    def test_digits_are_split_first(self, tokenizer):
        tokens = tokenizer.tokenize("c\n\n1975")
        assert tokens == ["c", "ĊĊ", "1", "9", "7", "5"]
        for text in TEXTS:
            assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_its_settings(self, tokenizer, target):
        assert tokenizer.model_max_length == 256 and tokenizer.padding_side == "left"
        assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
        generation = json.loads((target / "generation_config.json").read_text())
        assert (generation["eos_token_id"], generation["pad_token_id"]) == (2, 2)


def test_what_the_model_card_needs_is_written(tmp_path, target):
    write_llama(tmp_path / "m.gguf", quantization="Q8_0")
    convert(tmp_path / "m.gguf", target, source="a test", sha256="abc")
    base = json.loads((target / gguf_model.BASE_FILE).read_text())
    changes = base.pop("changes")
    assert base == {
        "conversion": gguf_model.CONVERSION,
        "name": "Tiny",
        "source": "a test",
        "file": "m.gguf",
        "sha256": "abc",
        "licence": "mit",
    }
    assert changes[0] == "Its weights were converted from Q8_0 to float32."
    assert len(changes) == 3


class TestRefusals:
    def refusal(self, tmp_path, write=write_llama, **settings):
        """Return the error of a conversion, which leaves no folder behind."""
        write(tmp_path / "m.gguf", **settings)
        with pytest.raises(TrainError) as caught:
            convert(tmp_path / "m.gguf", tmp_path / "converted", source="a test")
        assert "\n" not in str(caught.value) and str(tmp_path / "m.gguf") in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("phi3.rope.scaling.type", "yarn"),
            ("phi3.rope.scaling.factor", 2.0),
            ("phi3.rope.dimension_count", 99),
            ("phi3.attention.value_length", 99),
            ("phi3.expert_count", 4),
            ("phi3.attention.clamp_kqv", 8.0),
            ("general.architecture", "gemma"),
            ("tokenizer.ggml.model", "rwkv"),
            ("tokenizer.ggml.pre", "unknown"),
        ],
    )
    def test_a_field_that_phi3_cannot_express(self, tmp_path, field, value):
        assert f"{field} = {value} is not supported" in self.refusal(
            tmp_path, write_phi3, extra={field: value}
        )

    @pytest.mark.parametrize(
        "field",
        ["phi3.context_length", "phi3.block_count", "tokenizer.chat_template"],
    )
    def test_a_missing_field(self, tmp_path, field):
        error = self.refusal(tmp_path, write_phi3, extra={field: None})
        assert f"the field {field} is missing" in error

    def test_a_bias(self, tmp_path):
        error = self.refusal(tmp_path, attention_bias=True)
        assert "the tensor blk.0.attn_q.bias is not supported" in error

    def test_a_missing_tensor(self, tmp_path):
        error = self.refusal(tmp_path, write_phi3, extra={"phi3.block_count": 3})
        assert "the tensor blk.2.attn_norm.weight is missing or has another shape" in error

    def test_factors_of_the_positions_of_llama_3(self, tmp_path, monkeypatch):
        import numpy as np

        import tiny_gguf

        factors = {"rope_freqs.weight": np.ones(8, dtype=np.float32)}
        original = tiny_gguf.write_file
        monkeypatch.setattr(
            tiny_gguf, "write_file", lambda *a, **kw: original(*a, **kw, more_tensors=factors)
        )
        assert "the tensor rope_freqs.weight is not supported" in self.refusal(tmp_path)

    def test_one_factor_of_longrope(self, tmp_path):
        error = self.refusal(tmp_path, write_phi3, extra={"phi3.rope.scaling.type": "longrope"})
        assert "the tensor rope_factors_long.weight is missing" in error

    @pytest.mark.parametrize("size", [0, 3, 100, 5_000, 20_000, -1])
    def test_a_truncated_file(self, tmp_path, size):
        def write(path):
            write_llama(path)
            content = path.read_bytes()
            path.write_bytes(content[:size])

        error = self.refusal(tmp_path, write)
        assert "truncated" in error or "cannot be read" in error or "not a GGUF file" in error

    def test_a_file_that_does_not_exist(self, tmp_path):
        with pytest.raises(TrainError, match="cannot read the model file"):
            gguf_header.open_file(tmp_path / "m.gguf")

    def test_a_disk_that_is_too_small(self, tmp_path, monkeypatch):
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(
            gguf_model.shutil, "disk_usage", lambda folder: usage._replace(free=1_000_000)
        )
        write_llama(tmp_path / "m.gguf")
        with pytest.raises(TrainError, match="needs 50 MB, and the disk has 1 MB free"):
            convert(tmp_path / "m.gguf", tmp_path / "converted", source="a test")


class TestCommand:
    def run(self, *words, **settings):
        return subprocess.run(
            [sys.executable, TRAINING / "gguf_model.py", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=300,
            **settings,
        )

    def test_a_conversion_prints_nothing_on_standard_output(self, tmp_path, target):
        write_llama(tmp_path / "m.gguf")
        done = self.run(tmp_path / "m.gguf", target, "--name", "A name")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert json.loads((target / gguf_model.BASE_FILE).read_text())["name"] == "A name"

    def test_an_error_is_one_line_on_standard_output(self, tmp_path, target):
        (tmp_path / "m.gguf").write_bytes(b"GGUF" + os.urandom(100))
        done = self.run(tmp_path / "m.gguf", target)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith("the GGUF file cannot be read")
        assert done.stdout.count("\n") == 1 and not target.exists()

    def test_a_disk_that_becomes_full(self, tmp_path, target):
        import resource

        write_llama(tmp_path / "m.gguf")
        done = self.run(
            tmp_path / "m.gguf",
            target,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        )
        assert done.returncode == 1 and done.stdout.count("\n") == 1
        assert "File too large" in done.stdout

    def test_progress_is_printed_now_and_then(self, monkeypatch, capsys):
        monkeypatch.setattr(gguf_model, "REPORT_EVERY_S", 0.0)
        gguf_model.Progress()(1_000_000, 2_000_000)
        assert capsys.readouterr().err == "converted 1 MB of 2 MB, 0 s left\n"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", [build_tiny_model, build_tiny_longrope])
def test_an_export_is_read_back(tmp_path, target, build):
    """What `phi3 export --to gguf` writes can be fine-tuned again.

    build: makes a model with a byte-level tokenizer, or with one of SentencePiece.
    """
    import numpy as np

    from phi3_ops.take_home.gguf_file import write_gguf
    from phi3_ops.take_home.source import load_source

    source = load_source(str(build(tmp_path / "model")))
    write_gguf(source, tmp_path / "m.gguf", "f32", lambda written, total: None)
    convert(tmp_path / "m.gguf", target, source="a test")
    restored = load_source(str(target))
    assert restored.tensor_names == source.tensor_names
    for name in source.tensor_names:
        assert np.array_equal(restored.weights.read(name), source.weights.read(name))
    assert restored.attention_factor == pytest.approx(source.attention_factor)
    chat = [{"role": "user", "content": TEXTS[0]}]
    ids = [
        model.tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        for model in (source, restored)
    ]
    assert ids[0] == ids[1]
