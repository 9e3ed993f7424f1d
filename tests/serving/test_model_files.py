"""Finding the model in the folder that a deployment mounts."""

import pytest
import score
from model_files import ModelFiles, ModelNotFoundError, find_model


def make(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


def model(folder):
    return make(folder, "config.json", "model.safetensors", "tokenizer.json")


def mlflow_model(folder):
    make(folder, "MLmodel")
    weights = make(folder / "model", "config.json", "model-00001-of-00002.safetensors")
    return ModelFiles(weights, make(folder / "components" / "tokenizer", "tokenizer_config.json"))


@pytest.mark.parametrize("nested", [".", "1", "phi3/1", "phi3/1/outputs"])
def test_a_hugging_face_folder_is_found(tmp_path, nested):
    folder = model(tmp_path / nested)
    assert find_model(tmp_path) == ModelFiles(folder, folder)


@pytest.mark.parametrize("nested", [".", "mlflow_model", "phi3/1"])
def test_an_mlflow_folder_is_found(tmp_path, nested):
    assert mlflow_model(tmp_path / nested) == find_model(tmp_path)


def test_an_mlflow_folder_whose_model_has_a_tokenizer_too_is_one_model(tmp_path):
    files = mlflow_model(tmp_path)
    make(tmp_path / "model", "tokenizer.json")
    assert find_model(tmp_path) == files


def test_checkpoints_do_not_hide_the_model_above_them(tmp_path):
    model(tmp_path / "checkpoint-100")
    model(tmp_path)
    assert find_model(tmp_path).model == tmp_path


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "contains no model: expected config.json"),
        (("config.json", "tokenizer.json"), "contains no model: expected config.json"),
        (("config.json", "model.safetensors"), "contains no model: expected config.json"),
        (("adapter_config.json", "adapter_model.safetensors"), "only a LoRA adapter: merge it"),
    ],
)
def test_a_folder_without_a_model_is_reported_in_one_line(tmp_path, names, message):
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        find_model(make(tmp_path, *names))
    assert "\n" not in str(caught.value)


def test_two_models_are_an_error(tmp_path):
    model(tmp_path / "a")
    model(tmp_path / "b")
    with pytest.raises(ModelNotFoundError, match=r"more than one model \(a, b\)"):
        find_model(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ModelNotFoundError, match="is not a folder"):
        find_model(tmp_path / "nowhere")


def test_an_mlflow_model_is_served_like_the_plain_one(
    tmp_path, tiny_model_dir, scorer, monkeypatch
):
    monkeypatch.setenv("PHI3_ENGINE", "transformers")  # no second export
    for folder, tokenizer in (("model", False), ("components/tokenizer", True)):
        (tmp_path / folder).mkdir(parents=True)
        for file in tiny_model_dir.iterdir():
            if ("token" in file.name or file.suffix == ".jinja") == tokenizer:
                (tmp_path / folder / file.name).symlink_to(file)
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    payload = {"input_data": ["Hi"], "params": {"max_new_tokens": 5}}
    served = score.load(tmp_path, "mine")
    assert served.name == "mine"
    assert served.answer(payload) == scorer.answer(payload)
    served.close()
