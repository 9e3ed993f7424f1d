"""Adapters: their settings, and runs that start from them."""

import json
from dataclasses import replace
from pathlib import Path

import adapters
import pytest
from inputs import Recipe, TrainError, read_recipe
from options import CommandLine
from start import Start, base_identity, check_adapter, find_start
from training_run import ROWS, TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A recipe for adapters on a tiny model in a folder."""
    import models

    model, tokenizer = models.make_tiny(read_recipe(TINY_RECIPE), ROWS, TINY_RECIPE)
    folder = tmp_path_factory.mktemp("base")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Recipe("r", folder.as_posix(), lora={"r": 4, "alpha": 8})


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    """The folder of a saved adapter."""
    folder = tmp_path_factory.mktemp("run") / "adapter"
    adapters.save(adapt(base), base, folder)
    return folder


def adapt(recipe):
    import models
    import torch
    from peft import get_peft_model

    model = models.load_base(recipe, "cpu", dtype=torch.float32)
    return get_peft_model(model, adapters.make_lora(recipe))


def trained_names(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_all_linear_layers_but_the_head_are_adapted(base):
    everything = trained_names(adapt(replace(base, lora={"target_modules": "all-linear"})))
    assert everything == trained_names(adapt(base))
    assert not any("lm_head" in name for name in everything)


def test_rslora_dora_and_modules_that_are_trained_completely(base):
    lora = {"r": 4, "alpha": 8, "rslora": True, "dora": True, "modules_to_save": ["norm"]}
    model = adapt(replace(base, lora=lora))
    layer = model.base_model.model.model.layers[0].self_attn.o_proj
    assert layer.scaling["default"] == 8 / 4**0.5
    names = trained_names(model)
    assert any("lora_magnitude_vector" in name for name in names)
    assert any(".norm.modules_to_save." in name for name in names)


def test_an_adapter_names_its_base_without_its_path(base, saved):
    origin = json.loads((saved / "phi3-adapter.json").read_text())
    assert origin == base_identity(base.model)
    assert set(origin) == {"base", "base_sha256"}
    text = (saved / "adapter_config.json").read_text()
    assert str(Path(base.model).parent) not in text
    assert json.loads(text)["base_model_name_or_path"] == origin["base"]


def test_an_adapter_is_trained_further_on_its_base(base, saved):
    import models
    import torch

    model = adapters.start_from(models.load_base(base, "cpu", dtype=torch.float32), saved, base)
    assert trained_names(model) == trained_names(adapt(base))


def test_an_adapter_of_another_base_is_refused(base, saved, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(Path(base.model) / "model.safetensors")
    name = next(iter(weights))
    weights[name] = torch.zeros_like(weights[name])
    other = tmp_path / "other"
    other.mkdir()
    save_file(weights, other / "model.safetensors")
    (other / "config.json").write_text("{}")
    check_adapter(saved, base)
    problem = f"the adapter is of another base than {other}, {saved}: give that base with --model"
    with pytest.raises(TrainError, match=problem):
        check_adapter(saved, replace(base, model=str(other)))


def test_a_base_of_the_hub_is_compared_by_its_commit(base, saved, tmp_path):
    recipe = replace(base, model="owner/name")
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 8}')
    origin = {"base": "owner/name", "base_commit": "abc"}
    (tmp_path / "phi3-adapter.json").write_text(json.dumps(origin))
    check_adapter(tmp_path, recipe)
    check_adapter(tmp_path, recipe, "abc")
    for wrong, commit in ((recipe, "def"), (replace(base, model="owner/other"), None)):
        with pytest.raises(TrainError, match="the adapter is of another base"):
            check_adapter(tmp_path, wrong, commit)


@pytest.mark.parametrize(
    "lora",
    [
        {"r": 8},
        {"alpha": 16},
        {"dropout": 0.1},
        {"rslora": True},
        {"dora": True},
        {"target_modules": ["o_proj"]},
        {"modules_to_save": ["norm"]},
    ],
)
def test_settings_that_differ_from_the_adapters_are_refused(base, saved, lora):
    key = next(iter(lora))
    problem = rf"another lora.{key} than the recipe, .*: remove lora.{key} from the recipe \(the"
    with pytest.raises(TrainError, match=problem):
        check_adapter(saved, replace(base, lora=lora))


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"r": 4, "alpha": 8.0, "dropout": 0, "rslora": False, "dora": False, "modules_to_save": []},
        {"target_modules": "all-linear"},
        {"target_modules": ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]},
    ],
)
def test_settings_that_equal_the_adapters_are_accepted(base, saved, lora):
    check_adapter(saved, replace(base, lora=lora))


def test_an_adapter_of_all_linear_layers_has_the_names_of_the_modules(base, tmp_path):
    recipe = replace(base, lora={"target_modules": "all-linear"})
    adapters.save(adapt(recipe), recipe, tmp_path)
    check_adapter(tmp_path, recipe)
    check_adapter(tmp_path, replace(base, lora={"target_modules": adapters.PHI3_LORA_MODULES}))
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    settings["target_modules"] = ["model.layers.0.self_attn.o_proj", "down_proj"]
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(TrainError, match="the adapter has another lora.target_modules"):
        check_adapter(tmp_path, recipe)


def test_the_tiny_model_has_no_adapter(saved):
    with pytest.raises(TrainError, match="an adapter cannot be used with the tiny model"):
        check_adapter(saved, read_recipe(TINY_RECIPE))


def start_of(folder, **settings):
    files = dict.fromkeys(
        ("recipe", "train_files", "eval_file", "output_dir", "checkpoint_dir"), Path()
    )
    return find_start(CommandLine(**files, start_from=folder, **settings))


def test_the_folder_of_a_run_has_a_model_or_an_adapter(base, saved, tmp_path):
    assert start_of(None) == Start()
    assert start_of(saved) == start_of(saved.parent) == Start(adapter=saved)
    assert start_of(Path(base.model)) == Start(model=base.model)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    assert start_of(tmp_path) == Start(model=(tmp_path / "model").as_posix())


def test_a_folder_with_neither_and_a_second_model_are_refused(base, tmp_path):
    with pytest.raises(TrainError, match=f"neither a model nor an adapter, {tmp_path}: give"):
        start_of(tmp_path)
    with pytest.raises(TrainError, match="--from names a complete model"):
        start_of(Path(base.model), model="phi-4-mini")
