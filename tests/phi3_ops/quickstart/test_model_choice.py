"""Which recipe and how many questions suit the model of a quickstart."""

from __future__ import annotations

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.quickstart import model_choice
from phi3_ops.quickstart.model_choice import ModelChoice, choose_model, recipe_by_size


def folder_of_weights(folder, size):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(size)  # a sparse file
    return folder


@pytest.mark.parametrize(
    ("options", "choice"),
    [
        ((None, None, None), ModelChoice("smollm2", "smollm2-cpu", 60)),
        (("SmolLM2", None, 5), ModelChoice("SmolLM2", "smollm2-cpu", 5)),
        (("tiny", None, None), ModelChoice("tiny", "tiny-cpu", None)),
        (("tiny", None, 5), ModelChoice("tiny", "tiny-cpu", 5)),
        (("some.gguf", None, None), ModelChoice("some.gguf", None, 60)),
        (("owner/name", "lora", None), ModelChoice("owner/name", "lora", 60)),
        ((None, "tiny-cpu", None), ModelChoice("tiny", "tiny-cpu", None)),
        ((None, "lora", None), ModelChoice("phi-3.5-mini", "lora", 60)),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else "",
)
def test_the_options_decide(options, choice):
    assert choose_model(*options) == choice


@pytest.mark.parametrize(
    ("size", "recipe"), [(2_000_000, "tiny-cpu"), (540_000_000, "smollm2-cpu")], ids=str
)
def test_the_recipe_of_a_folder_follows_from_its_size(tmp_path, size, recipe):
    folder = folder_of_weights(tmp_path / "model", size)
    assert choose_model(str(folder), None, None) == ModelChoice(str(folder), recipe, 60)
    assert recipe_by_size(folder) == recipe


def test_a_large_model_needs_a_recipe(tmp_path):
    folder = folder_of_weights(tmp_path / "model", 7_640_000_000)
    with pytest.raises(OpsError, match=r"7\.6 GB of weights.*too much to train on a CPU"):
        choose_model(str(folder), None, None)
    assert choose_model(str(folder), "lora", None).recipe == "lora"


@pytest.mark.parametrize("model", ["smolm2", "owner/name", "phi-3.5-mini"])
def test_another_name_needs_a_recipe(model):
    with pytest.raises(
        OpsError, match="is neither a folder, nor a GGUF file, nor one of tiny, "
    ) as error:
        choose_model(model, None, None)
    assert "give --recipe" in str(error.value)


def test_an_unknown_recipe_is_named():
    with pytest.raises(OpsError, match="the recipe 'none' does not exist"):
        choose_model(None, "none", None)


def test_a_folder_of_the_name_of_a_model_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of_weights(tmp_path / "tiny", 600)
    choice = choose_model("tiny", None, None)
    assert not choice.is_tiny and str(choice.base_folder()) == "tiny"


def test_the_folder_of_the_base_model(tmp_path, monkeypatch):
    converted = folder_of_weights(tmp_path / "model", 600)
    monkeypatch.setattr(model_choice, "resolve_model", lambda model: converted)
    assert choose_model("smollm2", None, None).base_folder() == converted
    assert choose_model("tiny", None, None).base_folder() is None
    monkeypatch.setattr(model_choice, "resolve_model", lambda model: tmp_path / model)
    assert choose_model("owner/name", "lora", None).base_folder() is None
