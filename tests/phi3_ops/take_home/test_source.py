"""The model that is exported: where it is, and what is refused."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.take_home.source import load_source
from tiny_longrope import ORIGINAL_WINDOW, WINDOW


@pytest.fixture
def copy(tiny_model_dir, tmp_path):
    """A copy of the tiny model."""
    return shutil.copytree(tiny_model_dir, tmp_path / "copy")


def rewrite(file, **changes):
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, **changes}))


def test_a_model_and_the_output_of_a_training(copy, tmp_path):
    assert load_source(str(copy)).name == "copy"
    copy.rename(tmp_path / "model")
    assert load_source(str(tmp_path)).folder == tmp_path / "model"


def test_the_name_and_licence_of_a_converted_base(copy):
    (copy / "phi3-base.json").write_text('{"name": "Base", "licence": "mit"}')
    assert (load_source(str(copy)).name, load_source(str(copy)).licence) == ("Base", "mit")
    assert load_source(str(copy), "Mine").name == "Mine"
    (copy / "phi3-base.json").write_text("[]")
    assert load_source(str(copy)).licence is None


def test_the_tokens_that_end_an_answer(tiny, copy):
    assert tiny.end_tokens == ["<|endoftext|>", "<|end|>"]
    (copy / "generation_config.json").unlink()
    assert load_source(str(copy)).end_tokens == ["<|endoftext|>"]


def test_the_widths(tiny, longrope):
    assert (tiny.head_width, tiny.rope_width) == (32, 32)
    assert (longrope.head_width, longrope.rope_width) == (16, 12)
    assert tiny.original_context == tiny.config.max_position_embeddings
    assert tiny.attention_factor == 1.0


def test_longropes_attention_factor(longrope):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    _, factor = ROPE_INIT_FUNCTIONS["longrope"](longrope.config, "cpu")
    assert longrope.original_context == ORIGINAL_WINDOW
    assert longrope.attention_factor == pytest.approx(factor)
    scale = math.log(WINDOW / ORIGINAL_WINDOW) / math.log(ORIGINAL_WINDOW)
    assert factor == pytest.approx(math.sqrt(1 + scale))


def test_an_explicit_attention_factor(longrope, monkeypatch):
    rope = {**longrope.rope, "attention_factor": 1.75}
    monkeypatch.setattr(longrope.config, "rope_parameters", rope)
    assert longrope.attention_factor == 1.75


def test_folders_without_a_model(tmp_path):
    with pytest.raises(OpsError, match="config.json is missing. Give the folder"):
        load_source(str(tmp_path))
    (tmp_path / "adapter").mkdir()
    for adapter in (tmp_path / "adapter", tmp_path):
        (adapter / "adapter_config.json").write_text("{}")
        with pytest.raises(OpsError, match=f"{adapter} contains a LoRA adapter only. Merge it"):
            load_source(str(tmp_path))


def test_another_architecture(copy):
    rewrite(copy / "config.json", model_type="qwen2")
    with pytest.raises(OpsError, match="architecture qwen2. Only Phi-3"):
        load_source(str(copy))


def test_damaged_files(copy):
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(OpsError, match="cannot read the tokenizer in"):
        load_source(str(copy))
    (copy / "config.json").write_text("{")
    with pytest.raises(OpsError, match=r"cannot read .*config.json"):
        load_source(str(copy))


def test_no_chat_template(copy):
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(OpsError, match="has no chat template. Use an instruct model"):
        load_source(str(copy))
