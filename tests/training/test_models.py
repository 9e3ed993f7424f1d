"""Models by name, what they are trained in, and adapters that are merged for deployment."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import devices
import models
import pytest
from inputs import MODELS, TrainError, read_recipe, resolve_model
from training_run import ROWS, TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")

RECIPES = TINY_RECIPE.parent
QLORA = RECIPES / "qlora.yaml"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a tiny model, and a recipe for adapters on it."""
    recipe = read_recipe(TINY_RECIPE)
    model, tokenizer = models.make_tiny(recipe, ROWS, TINY_RECIPE)
    folder = tmp_path_factory.mktemp("base")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return replace(read_recipe(RECIPES / "lora.yaml"), model=str(folder))


@pytest.fixture
def adapted(base):
    """The tiny model with adapters that change what it says."""
    import torch
    from peft import get_peft_model

    torch.manual_seed(1)
    model = get_peft_model(models.base(base, "cpu", dtype=torch.float32), models.make_lora(base))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return model.eval()


def logits(model):
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(5, 45)[None]).logits.float()


def test_the_adapters_are_on_every_linear_layer_of_phi3(adapted):
    from torch.nn import Linear

    plain = {
        name.rpartition(".")[2] for name, m in adapted.named_modules() if isinstance(m, Linear)
    }
    assert plain - {"default", "base_layer"} == {"lm_head"}
    trained = {
        n.split(".lora_")[0].rpartition(".")[2]
        for n, p in adapted.named_parameters()
        if p.requires_grad
    }
    assert trained == set(models.PHI3_LORA_MODULES)


def test_the_merged_model_equals_the_adapted_one(adapted, base, tmp_path):
    import torch

    expected = logits(adapted)
    plain = logits(models.base(base, "cpu", dtype=torch.float32))
    merged = models.merged(adapted, base, tmp_path / "adapters")
    assert not [name for name in merged.state_dict() if "lora" in name]
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    assert (expected - plain).abs().max() > 0.05, "the adapters do something"


def test_a_quantized_models_adapters_are_merged_into_the_base_as_it_came(adapted, base, tmp_path):
    import torch

    expected = logits(adapted)
    plain = logits(models.base(base, "cpu", dtype=torch.float32))
    merged = models.merged(adapted, replace(base, quantization="nf4"), tmp_path / "adapters")
    assert {each.dtype for each in merged.state_dict().values()} == {torch.bfloat16}
    assert not [name for name in merged.state_dict() if "lora" in name]
    # bf16 has three digits: far nearer to the adapted model than that is to the base.
    assert (logits(merged) - expected).abs().max() < (expected - plain).abs().max() / 5


def test_quantization_is_qloras(monkeypatch):
    import torch

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    for device, dtype in (("cuda", torch.bfloat16), ("cuda without bf16", torch.float16)):
        config = models.quantization(read_recipe(QLORA), device, QLORA)
        assert config.load_in_4bit and config.bnb_4bit_use_double_quant
        assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", dtype)


def test_quantization_without_a_gpu_or_bitsandbytes_is_one_clear_line(monkeypatch):
    recipe = read_recipe(QLORA)
    with pytest.raises(TrainError, match="cannot run on the CPU, .*use recipes/lora.yaml"):
        models.quantization(recipe, "cpu", QLORA)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainError, match="needs the package bitsandbytes"):
        models.quantization(recipe, "cuda", QLORA)


@pytest.mark.parametrize(
    ("recipe", "device", "dtype"),
    [
        ("full", "cpu", "float32"),
        ("full", "cuda", "float32"),
        ("full", "cuda without bf16", "float32"),
        ("lora", "cpu", "float32"),
        ("lora", "cuda", "bfloat16"),
        ("lora", "cuda without bf16", "float32"),
        ("qlora", "cuda", "bfloat16"),
        ("qlora", "cuda without bf16", "float16"),
    ],
)
def test_weights_that_are_trained_are_float32(recipe, device, dtype):
    import torch

    recipe = read_recipe(RECIPES / f"{recipe}.yaml")
    assert models.weights_dtype(recipe, device) == getattr(torch, dtype)


@pytest.mark.parametrize(
    ("capability", "installed", "device", "expected"),
    [
        ((8, 0), True, "cuda", "flash_attention_2"),
        ((9, 0), True, "cuda", "flash_attention_2"),
        ((7, 5), True, "cuda without bf16", "sdpa"),
        ((8, 0), False, "cuda", "sdpa"),
        ((8, 0), True, "cpu", "sdpa"),
    ],
)
def test_attention_is_the_fastest_that_is_there(
    monkeypatch, capability, installed, device, expected
):
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if installed else None)
    assert devices.choose_attention("auto", device) == expected
    assert devices.choose_attention("eager", device) == "eager"


@pytest.mark.parametrize(("name", "hub_id"), MODELS.items())
def test_a_short_name_is_a_hub_id(name, hub_id):
    assert resolve_model(name) == resolve_model(name.upper()) == hub_id
    assert resolve_model(hub_id) == hub_id


def test_a_folder_of_that_name_is_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("phi-4-mini").mkdir()
    assert resolve_model("phi-4-mini") == "phi-4-mini"


def test_generation_stops_at_the_end_of_the_turn(trained):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    model = AutoModelForCausalLM.from_pretrained(trained / "model")
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    prompt = tokenizer.apply_chat_template(
        ROWS[0]["messages"][:1], add_generation_prompt=True, return_tensors="pt"
    )
    torch.manual_seed(0)
    answer = model.generate(**prompt, max_new_tokens=40)[0, prompt["input_ids"].shape[1] :].tolist()
    assert answer.index(end) == len(answer) - 1 < 39
