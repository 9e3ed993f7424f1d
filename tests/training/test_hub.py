"""The hub: revisions, and the push of the result by a client that only records the calls."""

from dataclasses import replace
from types import SimpleNamespace

import hub
import options
import pytest
import start
from inputs import TrainError, read_recipe
from recipe_checks import TINY
from training_run import TINY_RECIPE, TRAINING, arguments

RECIPE = replace(
    read_recipe(TRAINING / "recipes" / "lora.yaml"), push_to_hub=True, hub_model_id="me/mine"
)
SECRET = "hf_secret"


class FakeApi:
    """Records the calls of HfApi.

    Args:
        private: whether the repository is private.
        error: error of the upload, or None.
    """

    def __init__(self, private=True, error=None):
        self.private, self.error, self.calls = private, error, []

    def create_repo(self, repo_id, **settings):
        self.calls.append(("create_repo", repo_id, settings))

    def repo_info(self, repo_id):
        return SimpleNamespace(private=self.private)

    def upload_folder(self, **settings):
        self.calls.append(("upload_folder", settings["repo_id"], settings["folder_path"]))
        if self.error:
            raise self.error


def test_a_result_is_pushed_once_and_private(tmp_path, capsys):
    api = FakeApi()
    hub.push(RECIPE, tmp_path, api)
    assert api.calls == [
        ("create_repo", "me/mine", {"private": True, "exist_ok": True}),
        ("upload_folder", "me/mine", tmp_path / "model"),
    ]
    assert capsys.readouterr().err == f"train.py: pushed {tmp_path / 'model'} to me/mine\n"
    hub.push(replace(RECIPE, push_to_hub=False), tmp_path, None)


def test_the_client_of_huggingface_hub_takes_the_calls(monkeypatch):
    from unittest.mock import create_autospec

    from huggingface_hub import HfApi

    api = create_autospec(HfApi, instance=True)
    api.repo_info.return_value = SimpleNamespace(private=True)
    hub.push(RECIPE, TRAINING, api)
    assert api.upload_folder.call_count == 1


def test_an_adapter_alone_is_pushed_without_a_merge(tmp_path):
    api = FakeApi()
    hub.push(replace(RECIPE, merge=False, hub_private=False), tmp_path, api)
    assert api.calls[0][2]["private"] is False
    assert api.calls[1][2] == tmp_path / "adapter"


def test_a_public_repository_gets_nothing_by_mistake(tmp_path):
    api = FakeApi(private=False)
    with pytest.raises(TrainError, match="me/mine is public, so nothing was pushed"):
        hub.push(RECIPE, tmp_path, api)
    assert [call[0] for call in api.calls] == ["create_repo"]


def test_an_error_of_the_hub_quotes_no_token(tmp_path):
    error = RuntimeError(f"403 for token {SECRET}")
    error.response = SimpleNamespace(status_code=403)
    with pytest.raises(TrainError) as caught:
        hub.push(RECIPE, tmp_path, FakeApi(error=error))
    assert "the result is complete, but it was not pushed to me/mine" in str(caught.value)
    assert "(RuntimeError 403)" in str(caught.value) and SECRET not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_push_needs_a_token():
    with pytest.raises(TrainError, match="the variable HF_TOKEN is not set, .*recipe.yaml: set"):
        hub.check_push(RECIPE, "recipe.yaml", {"HF_TOKEN": ""})
    hub.check_push(RECIPE, "recipe.yaml", {"HF_TOKEN": SECRET})
    hub.check_push(replace(RECIPE, push_to_hub=False), "recipe.yaml", {})


def test_a_revision_is_one_of_the_recipes_model_on_the_hub(tmp_path):
    recipe = replace(RECIPE, revision="v2")
    start.check_revision(recipe, recipe.model, TINY_RECIPE)
    for model in (str(tmp_path), TINY):
        with pytest.raises(TrainError, match="the recipe has `revision`, and its model is .*GGUF"):
            start.check_revision(recipe, model, TINY_RECIPE)
    line = options.parse(arguments("a", "b", TINY_RECIPE, "--model", "a/b"), "")
    with pytest.raises(TrainError, match="`revision` is one of .*, and --model names a/b"):
        options.override(recipe, line)


def test_the_revision_of_the_base_is_loaded(monkeypatch):
    import models
    from transformers import AutoModelForCausalLM, AutoTokenizer

    revisions = []

    def load(name, **settings):
        revisions.append(settings["revision"])
        raise OSError

    for loader in (AutoModelForCausalLM, AutoTokenizer):
        monkeypatch.setattr(loader, "from_pretrained", load)
    recipe = replace(RECIPE, revision="v2")
    for function in (models.load_tokenizer, models.load_base):
        with pytest.raises(TrainError, match="cannot load the model"):
            function(recipe, *(([], TINY_RECIPE) if function is models.load_tokenizer else ["cpu"]))
    assert revisions == ["v2", "v2"]
