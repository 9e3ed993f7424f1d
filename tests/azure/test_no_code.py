"""An MLflow model without a scoring script: the chat template is applied exactly once."""

from __future__ import annotations

import runpy

import pytest

from azure_fixtures import WORKSPACE
from phi3_ops import paths
from phi3_ops.pf.connections import load_connection
from phi3_tools import Params, Phi3Client

# Azure ML's server for such a model, as far as requests are concerned.
NO_CODE = """
import json, os, pathlib
import mlflow

def init():
    global model
    folder = pathlib.Path(os.environ["AZUREML_MODEL_DIR"])
    model = mlflow.pyfunc.load_model(str(next(folder.rglob("MLmodel")).parent))

def run(text):
    request = json.loads(text)
    return model.predict(request["input_data"], params=request["params"])
"""
CHATS = {
    "a question": [("user", "Who founded Microsoft?")],
    "several turns": [("user", "Hi"), ("assistant", "Yes?"), ("user", "What is {prompt}?")],
    "a system message": [("system", "Be brief."), ("user", "What is the capital of France?")],
}
TOKENS = 12

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # from MLflow's imports


@pytest.fixture
def model(tiny_model_dir):
    """The tiny model and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    return model, AutoTokenizer.from_pretrained(tiny_model_dir)


@pytest.fixture
def deployed(serving, phi3, model, tmp_path, monkeypatch):
    """Run `phi3 deploy` and `phi3 connect` for a saved model, in the variant without code."""
    from fake_azure.storage import container_of

    monkeypatch.syspath_prepend(paths.TRAINING)
    outputs = runpy.run_path(str(paths.TRAINING / "outputs.py"))
    outputs["save_mlflow"](*model, tmp_path / "mlflow")
    (tmp_path / "stand-in").mkdir()
    (tmp_path / "stand-in" / "score.py").write_text(NO_CODE)
    (tmp_path / "phi3.yaml").write_text("endpoint: {variant: mlflow}")
    serving.azure.stand_ins["mlflow"] = tmp_path / "stand-in"
    blobs = f"azureml/{serving.job('one')}/model_output/mlflow"
    serving.azure.storage.put_folder(container_of(WORKSPACE), blobs, tmp_path / "mlflow")
    for words in (("deploy", "--job", "one", "--drain", 0), ("connect", "--azure")):
        done = phi3(*words)
        assert done.code == 0, done.err
    return serving


def test_an_answer_is_that_of_the_models_chat_template(deployed, model):
    connection = load_connection("phi3")
    assert dict(connection.configs)["template"] == "server"
    with Phi3Client.from_connection(connection) as client:
        for name, turns in CHATS.items():
            messages = [{"role": role, "content": content} for role, content in turns]
            answer = client.chat(messages, Params(max_new_tokens=TOKENS, temperature=0)).text
            assert answer == greedy(*model, messages), name


def greedy(model, tokenizer, messages):
    """Return the model's own answer."""
    from phi3_tools.client.messages import open_with_user

    inputs = tokenizer.apply_chat_template(
        open_with_user(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    sequences = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    new = sequences[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True).strip()  # as MLflow does
