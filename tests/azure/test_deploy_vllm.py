"""The variant with vLLM's container: how it starts, and that it is asked in OpenAI's contract."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import yaml

from azure_fixtures import WORKSPACE
from phi3_ops import paths
from phi3_ops.pf.connections import load_connection
from phi3_tools import Params, Phi3Client

VLLM = paths.AZURE / "vllm"
START = VLLM / "start.sh"
# Replaces the program `vllm`: it prints its arguments.
PROGRAM = '#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n'
MLFLOW = ("model/model-00001-of-00002.safetensors", "model/model-00002-of-00002.safetensors",
          "components/tokenizer/tokenizer.json", "MLmodel")  # fmt: skip
HUGGING_FACE = ("model.safetensors", "tokenizer.json", "config.json")
# Replaces the container: it starts in the same way, then speaks vLLM's dialect of OpenAI's contract.
STAND_IN = f"""
import json, os, subprocess
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

ROUTE = "/v1/chat/completions"

def init():
    started = subprocess.run(["/bin/sh", {str(START)!r}], capture_output=True, text=True, check=True)
    global arguments
    arguments = started.stdout.split()

@rawhttp
def run(request):
    asked = json.loads(request.get_data())
    name = arguments[arguments.index("--served-model-name") + 1]
    if asked.get("model", name) != name:
        error = {{"message": "The model does not exist.", "type": "NotFoundError", "code": 404}}
        return AMLResponse(json.dumps({{"error": error}}), 404)
    if "messages" not in asked:
        error = {{"message": "Field required", "type": "BadRequestError", "code": 400}}
        return AMLResponse(json.dumps({{"error": error}}), 400)
    if asked.get("stream"):
        return AMLResponse(chunks(name), 200, {{"Content-Type": "text/event-stream"}})
    message = {{"role": "assistant", "content": " ".join(arguments)}}
    choice = {{"index": 0, "message": message, "finish_reason": "stop"}}
    return AMLResponse(json.dumps({{"model": name, "choices": [choice]}}), 200)

def chunks(name):
    for number, word in enumerate(arguments):
        choice = {{"index": 0, "delta": {{"content": " " * (number > 0) + word}}, "finish_reason": None}}
        yield "data: " + json.dumps({{"model": name, "choices": [choice]}}) + "\\n\\n"
    yield "data: [DONE]\\n\\n"
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put `vllm` on the path."""
    (tmp_path / "bin").mkdir()
    file = tmp_path / "bin" / "vllm"
    file.write_text(PROGRAM)
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}{os.pathsep}{os.environ['PATH']}")


def planted(folder, files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def started(folder, **variables):
    environment = {**os.environ, "AZUREML_MODEL_DIR": str(folder), **variables}
    return subprocess.run(
        ["/bin/sh", str(START)], env=environment, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    ("files", "model", "tokenizer"),
    [(MLFLOW, "mlflow/model", "mlflow/components/tokenizer"), (HUGGING_FACE, "mlflow", "mlflow")],
    ids=["mlflow", "hugging face"],
)
def test_it_starts_with_the_mounted_model(tmp_path, program, files, model, tokenizer):
    mount = tmp_path / "a mount" / "1"
    planted(mount / "mlflow", files)
    done = started(mount, VLLM_ARGS="--served-model-name phi3", MAX_MODEL_LEN="8192")
    assert done.stdout.splitlines() == [
        *("serve", f"{mount}/{model}", "--tokenizer", f"{mount}/{tokenizer}"),
        *("--host", "0.0.0.0", "--port", "8000", "--max-model-len", "8192"),
        *("--served-model-name", "phi3"),
    ]
    assert started(mount).returncode == 0  # VLLM_ARGS is optional


def test_the_chat_template_of_the_tokenizer_is_used(tmp_path, program):
    folder = planted(tmp_path / "mount", [*HUGGING_FACE, "chat_template.jinja"])
    words = started(folder).stdout.splitlines()
    assert words[words.index("--chat-template") + 1] == f"{folder}/chat_template.jinja"
    assert words[words.index("--max-model-len") + 1] == "4096"


@pytest.mark.parametrize(("vocabulary", "parsed"), [(200064, True), (32064, False)])
def test_phi_4_minis_tool_calls_are_parsed(tmp_path, program, vocabulary, parsed):
    folder = planted(tmp_path / "mount", HUGGING_FACE)
    (folder / "config.json").write_text(f'{{\n  "vocab_size": {vocabulary}\n}}')
    words = started(folder).stdout.splitlines()
    assert ("phi4_mini_json" in words) is ("--enable-auto-tool-choice" in words) is parsed


def test_adapters_are_served_by_name_beside_the_model(tmp_path, program):
    mount = planted(tmp_path / "a mount", HUGGING_FACE)
    for name, rank in (("short", 16), ("formal", 24)):
        files = ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json")
        folder = planted(mount / "adapters" / name, files)
        (folder / "adapter_config.json").write_text(f'{{\n  "lora_alpha": 8,\n  "r": {rank},\n}}')
    words = started(mount).stdout.splitlines()
    assert words[1:4] == [f"{mount}", "--tokenizer", f"{mount}"]
    assert words[words.index("--enable-lora") :] == [
        *("--enable-lora", "--lora-modules"),
        *(f"{name}={mount}/adapters/{name}" for name in ("formal", "short")),
        *("--max-lora-rank", "32"),
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "DoRA (dora: true)"),
        ({"modules_to_save": ["norm", "lm_head"]}, "modules_to_save"),
        ({"use_dora": False, "modules_to_save": None}, None),
        ({"modules_to_save": []}, None),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_an_adapter_that_vllm_does_not_support_is_refused(
    tmp_path, program, settings, reason, indent
):
    mount = planted(tmp_path / "mount", HUGGING_FACE)
    folder = planted(mount / "adapters" / "short", ["adapter_config.json"])
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, **settings}, indent=indent))
    done = started(mount)
    assert done.stderr == (
        f"the adapter short cannot be served: vLLM does not support {reason}; serve the merged model"
        " instead\n"
        if reason
        else ""
    )
    assert (done.returncode, "serve" in done.stdout) == ((1, False) if reason else (0, True))


@pytest.mark.parametrize("missing", ["*.safetensors", "tokenizer.json"])
def test_a_mount_without_a_model_is_an_error(tmp_path, program, missing):
    files = [name for name in HUGGING_FACE if not name.endswith(missing.lstrip("*"))]
    done = started(planted(tmp_path / "mount", files))
    assert done.returncode == 1
    assert done.stderr == (
        f"the model that Azure ML mounts at {tmp_path / 'mount'} contains no {missing}\n"
    )


def test_the_probes_and_the_scoring_route_are_vllms():
    text = (VLLM.parent / "deployment-vllm.yml").read_text(encoding="utf-8")
    environment = yaml.safe_load(text)["environment"]
    routes = environment["inference_config"]
    port = int(START.read_text().split("--port ")[1].split()[0])
    assert {name: route["path"] for name, route in routes.items()} == {
        "liveness_route": "/health",
        "readiness_route": "/health",
        "scoring_route": "/v1/chat/completions",
    }
    assert {route["port"] for route in routes.values()} == {port}
    assert f"EXPOSE {port}\n" in (VLLM / "Dockerfile").read_text()
    assert (VLLM.parent / environment["build"]["path"]) == VLLM


def test_it_is_deployed_and_asked_in_openais_contract(
    serving, phi3, program, tmp_path, monkeypatch
):
    from fake_azure.storage import container_of

    (tmp_path / "stand-in").mkdir()
    (tmp_path / "stand-in" / "score.py").write_text(STAND_IN)
    (tmp_path / "phi3.yaml").write_text("endpoint: {variant: auto}")
    serving.azure.stand_ins["mlflow"] = (
        tmp_path / "stand-in"
    )  # "mlflow" is the fake's name for a built image
    bare = serving.azure.bare_environment
    monkeypatch.setattr(
        serving.azure, "bare_environment", lambda more: {**bare(more), "PATH": os.environ["PATH"]}
    )
    blobs = f"azureml/{serving.job('one')}/model_output/mlflow"
    folder = planted(tmp_path / "mlflow", MLFLOW)
    serving.azure.storage.put_folder(container_of(WORKSPACE), blobs, folder)
    for words in (("deploy", "--job", "one", "--drain", 0), ("connect", "--azure")):
        done = phi3(*words)
        assert done.code == 0, done.err
    connection = load_connection("phi3")
    assert dict(connection.configs)["contract"] == "openai"
    assert dict(connection.configs)["endpoint"].endswith("azure.com/v1/chat/completions")
    with Phi3Client.from_connection(connection) as client:
        answer = client.chat("Hi", Params(max_new_tokens=8)).text
        assert "".join(client.stream("Hi", Params(max_new_tokens=8))) == answer
    assert answer.startswith("serve ")
    assert "--served-model-name phi3" in answer
