"""The model to train: its weights' data type, its adapters, and how they are merged."""

import importlib.util
import shutil
from dataclasses import replace

import adapters
import models
import pytest
from distributed import SINGLE_PROCESS
from inputs import TrainError, read_recipe
from training_run import ROWS, TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")

RECIPES = TINY_RECIPE.parent
QLORA = RECIPES / "qlora.yaml"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A recipe for adapters on a tiny model in a folder."""
    recipe = read_recipe(TINY_RECIPE)
    model, tokenizer = models.make_tiny(recipe, ROWS, TINY_RECIPE)
    folder = tmp_path_factory.mktemp("base")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return replace(read_recipe(RECIPES / "lora.yaml"), model=str(folder))


@pytest.fixture
def adapted(base):
    """The tiny model with adapters that change its answers."""
    import torch
    from peft import get_peft_model

    torch.manual_seed(1)
    model = get_peft_model(
        models.load_base(base, "cpu", dtype=torch.float32), adapters.make_lora(base)
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return model.eval()


def logits(model):
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(5, 45)[None]).logits.float()


def test_the_adapters_are_on_every_linear_layer_of_phi3_but_the_head(adapted):
    from torch.nn import Linear

    linear = {
        name.rpartition(".")[2]
        for name, module in adapted.named_modules()
        if isinstance(module, Linear)
    }
    assert linear - {"default", "base_layer"} == {"lm_head"}
    trained = {
        name.split(".lora_")[0].rpartition(".")[2]
        for name, parameter in adapted.named_parameters()
        if parameter.requires_grad
    }
    assert trained == set(adapters.PHI3_LORA_MODULES)


def test_a_recipe_may_adapt_a_single_module(base):
    import torch
    from peft import get_peft_model

    recipe = replace(base, lora={"r": 4, "target_modules": ["qkv_proj"]})
    model = models.load_base(base, "cpu", dtype=torch.float32)
    adapted = get_peft_model(model, adapters.make_lora(recipe))
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained and all(".qkv_proj.lora_" in name for name in trained)


def test_adapters_have_the_settings_of_the_recipe(base):
    lora = {"r": 4, "alpha": 8, "dropout": 0.5, "target_modules": ["o_proj", "down_proj"]}
    config = adapters.make_lora(replace(base, lora=lora))
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8, 0.5)
    assert config.target_modules == {"o_proj", "down_proj"}
    defaults = adapters.make_lora(replace(base, lora={}))
    assert (defaults.r, defaults.lora_alpha, defaults.lora_dropout) == (16, 32, 0.0)
    assert defaults.target_modules == set(adapters.PHI3_LORA_MODULES)
    assert adapters.make_lora(replace(base, lora=None)) is None


def test_a_base_in_a_folder_is_loaded_with_its_tokenizer(base):
    model, tokenizer = models.load(base, ROWS, "cpu", SINGLE_PROCESS, TINY_RECIPE)
    assert model.config.architectures == ["Phi3ForCausalLM"]
    assert tokenizer.pad_token == "<|endoftext|>"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_tiny_model_has_the_attention_of_the_recipe(attention):
    recipe = replace(read_recipe(TINY_RECIPE), attention=attention)
    model, _ = models.load(recipe, ROWS, "cpu", SINGLE_PROCESS, TINY_RECIPE)
    assert model.config._attn_implementation == attention


def test_an_attention_that_cannot_be_used_is_reported():
    recipe = replace(read_recipe(TINY_RECIPE), attention="flash")
    with pytest.raises(TrainError, match="cannot use `attention: flash`, .*tiny-cpu.yaml: use "):
        models.load(recipe, ROWS, "cpu", SINGLE_PROCESS, TINY_RECIPE)


def test_a_folder_that_is_not_a_model_is_reported(base, tmp_path):
    broken = replace(base, model=str(tmp_path))
    with pytest.raises(TrainError, match=f"cannot load the model, {tmp_path}: "):
        models.load(broken, ROWS, "cpu", SINGLE_PROCESS, TINY_RECIPE)


def test_wrong_tiny_settings_are_reported():
    recipe = read_recipe(TINY_RECIPE)
    wrong = replace(recipe, tiny=recipe.tiny | {"hidden_size": "wide"})
    with pytest.raises(
        TrainError, match="`tiny` settings do not describe a valid Phi-3, .*tiny-cpu"
    ):
        models.make_tiny(wrong, ROWS, TINY_RECIPE)


def test_the_merged_model_equals_the_adapted_one(adapted, base, tmp_path):
    import torch

    expected = logits(adapted)
    plain = logits(models.load_base(base, "cpu", dtype=torch.float32))
    merged = adapters.merge(adapted, base, tmp_path / "adapter")
    assert not [name for name in merged.state_dict() if "lora" in name]
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    assert (expected - plain).abs().max() > 0.05, "the adapters do something"


def test_adapters_of_a_quantized_model_are_merged_into_the_original_base(adapted, base, tmp_path):
    import torch

    expected = logits(adapted)
    plain = logits(models.load_base(base, "cpu", dtype=torch.float32))
    adapters.save(adapted, base, tmp_path / "adapter")
    merged = adapters.merge(adapted, replace(base, quantization="nf4"), tmp_path / "adapter")
    assert {weight.dtype for weight in merged.state_dict().values()} == {torch.bfloat16}
    assert not [name for name in merged.state_dict() if "lora" in name]
    # bf16 has three digits. The difference is small compared with what the adapters change.
    assert (logits(merged) - expected).abs().max() < (expected - plain).abs().max() / 5


def test_quantization_has_the_settings_of_qlora(monkeypatch):
    import torch

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    for device, dtype in (("cuda", torch.bfloat16), ("cuda without bf16", torch.float16)):
        config = models.make_quantization(read_recipe(QLORA), device, QLORA)
        assert config.load_in_4bit and config.bnb_4bit_use_double_quant
        assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", dtype)


def test_quantization_without_a_gpu_or_bitsandbytes_is_one_clear_line(monkeypatch):
    recipe = read_recipe(QLORA)
    with pytest.raises(TrainError, match="cannot run on the CPU, .*use recipes/lora.yaml"):
        models.make_quantization(recipe, "cpu", QLORA)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainError, match="needs the package bitsandbytes"):
        models.make_quantization(recipe, "cuda", QLORA)


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
    ("has_bf16", "compute"), [(False, "float16"), (True, "bfloat16")], ids=["Turing", "Ampere"]
)
def test_qlora_has_one_half_precision_and_float32_adapters(monkeypatch, has_bf16, compute):
    import devices
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    recipe, device = read_recipe(QLORA), devices.choose_device()
    compute = getattr(torch, compute)
    assert models.weights_dtype(recipe, device) == compute
    assert models.make_quantization(recipe, device, QLORA).bnb_4bit_compute_dtype == compute
    precision = devices.PRECISIONS[device]
    assert (precision["fp16"], precision["bf16"]) == (not has_bf16, has_bf16)


@pytest.mark.finding(
    22,
    "QLoRA on a GPU without bf16",
    "adapters are float32, and the base has one half precision",
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_adapters_of_a_quantized_base_are_trained_in_float32(base, tmp_path, dtype):
    """TRL casts the adapters of a quantized base to bf16, which fp16's scaling cannot use."""
    import torch
    from checkpoints import Checkpoints
    from datasets import Dataset
    from sft_config import make_config
    from templates import training_template
    from trainer import Trainer

    recipe = replace(base, trainer={"eval_strategy": "no", "packing": False})
    tokenizer = models.load_tokenizer(recipe, ROWS, TINY_RECIPE)
    tokenizer.chat_template = training_template(tokenizer, "tiny")
    model = models.load_base(recipe, "cpu", dtype=getattr(torch, dtype))
    model.is_loaded_in_4bit = True
    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        args=make_config(recipe, "cpu", tmp_path, TINY_RECIPE),
        train_dataset=Dataset.from_list(ROWS),
        peft_config=adapters.make_lora(recipe),
        checkpoints=Checkpoints(tmp_path, {}),
        max_cut_share=0.1,
    )
    types = {(weight.requires_grad, weight.dtype) for weight in trainer.model.parameters()}
    assert types == {(True, torch.float32), (False, getattr(torch, dtype))}


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


def test_only_the_last_layers_are_trained(trained):
    from pathlib import Path

    import models
    from inputs import Recipe

    recipe = Recipe(name="r", model=str(trained / "base"), trained_layers=1)
    model = models.load_base(recipe, "cpu")
    models.freeze(model, recipe, Path("r.yaml"))
    names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert names and all(name.startswith("model.layers.1.") for name in names)
    too_many = Recipe(name="r", model=recipe.model, trained_layers=3)
    with pytest.raises(TrainError, match="`trained_layers: 3` is more than the model's 2, r.yaml"):
        models.freeze(model, too_many, Path("r.yaml"))


def test_a_layer_that_is_not_trained_keeps_its_weights(train_cli, tmp_path):
    from safetensors.torch import load_file
    from small import read_weights, write_recipe

    recipe = write_recipe(tmp_path / "small.yaml", trained_layers=1)
    finished = train_cli(tmp_path / "out", "--epochs", "1", recipe=recipe)
    assert finished.returncode == 0, finished.stderr
    base = load_file(tmp_path / "out" / "base" / "model.safetensors")
    changed = {
        name
        for name, value in read_weights(tmp_path / "out").items()
        if (value != base[name]).any()
    }
    assert changed and all(name.startswith("model.layers.1.") for name in changed)


def test_kernels_of_the_hub_are_refused_where_they_cannot_run(base, monkeypatch):
    import transformers.utils

    with pytest.raises(TrainError, match="`use_kernels` cannot run on the CPU"):
        models.load(replace(base, use_kernels=True), ROWS, "cpu", SINGLE_PROCESS, QLORA)
    monkeypatch.setattr(transformers.utils, "is_kernels_available", lambda: False)
    with pytest.raises(TrainError, match="needs the package kernels, .*: pip install kernels"):
        models.check_kernels("cuda", QLORA)
    monkeypatch.setattr(transformers.utils, "is_kernels_available", lambda: True)
    models.check_kernels("cuda", QLORA)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"\xff" * 100),
        ("model.safetensors", b""),
        ("config.json", b"[1]"),
        ("tokenizer.json", b"{"),
        ("tokenizer_config.json", b"[]"),
    ],
)
def test_a_damaged_file_is_one_clear_error(base, tmp_path, name, content):
    shutil.copytree(base.model, tmp_path / "copy")
    (tmp_path / "copy" / name).write_bytes(content)
    recipe = replace(base, model=str(tmp_path / "copy"))
    with pytest.raises(
        TrainError, match=r"cannot load the model, .*copy: .*copy a damaged file"
    ) as e:
        models.load_tokenizer(recipe, ROWS, TINY_RECIPE)
        models.load_base(recipe, "cpu")
    assert "\n" not in str(e.value)
