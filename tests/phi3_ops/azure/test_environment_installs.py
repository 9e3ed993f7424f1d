"""The packages of Azure's environments install into a clean CPython 3.11, and entry scripts run there.

torch is the one of this environment: its wheel on the package index is built for GPUs and takes
gigabytes. tests/phi3_ops/azure/test_environments.py resolves its version.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from echo_endpoint import KEY, echo_endpoint
from inference_server import free_port, running
from phi3_ops import paths
from phi3_ops.azure.environments import pip_requirements
from phi3_ops.flows.content import copy_flow
from phi3_ops.flows.wheel import build_tool_wheel
from shared_packages import main as share_packages

LIMIT_S = 900
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="Azure's environments have 3.11"),
]
RECIPE = {
    "model": "tiny",
    "samples": 0,
    "tiny": {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    },
    "trainer": {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 2,
        "max_length": 64,
        "eval_strategy": "no",
        "gradient_checkpointing": False,
    },
}
# What Azure ML's parallel driver imports, and then a mini-batch, with a connection of the test.
BATCH = """
import json, sys
import azureml.core, azureml.dataprep, azureml.telemetry, azure.identity, pandas
import entry
from phi3_tools.connections import Connection

fields, key, lines = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
sys.argv = ["entry.py", "--answers", "answers", "--progress", "progress"]
entry.WorkspaceConnections = lambda: {"phi3": Connection("phi3", fields, {"key": key})}
entry.init()
assert entry.run([lines]) == [lines]
entry.shutdown()
"""


def run(*words: object, folder: Path, env: dict[str, str] | None = None) -> str:
    """Run a command in a folder, and return its output."""
    command = [str(word) for word in words]
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def install(folder: Path, requirements: list[str], shared: tuple[str, ...] = ()) -> Path:
    """Make an environment with these packages, and return its python."""
    run(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    if shared:
        share_packages(folder / "venv", list(shared))
    options = ["--quiet", "--no-compile", "--prefer-binary"]
    run(python, "-m", "pip", "install", *options, *requirements, folder=folder)
    return python


def without_torch(conda_file: Path) -> list[str]:
    """Return the requirements of a conda file without comments and without torch."""
    texts = [text.split("#")[0].strip() for text in pip_requirements(conda_file)]
    return [text for text in texts if not text.startswith("torch==")]


def test_training(tmp_path):
    python = install(tmp_path, without_torch(paths.TRAINING / "conda.yaml"), ("torch",))
    rows, recipe, out = (tmp_path / name for name in ("rows.jsonl", "recipe.yaml", "out"))
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    rows.write_text(f"{json.dumps({'messages': turns})}\n" * 4)
    recipe.write_text(yaml.safe_dump(RECIPE))
    files = ("--train-file", rows, "--eval-file", rows, "--output-dir", out)
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    train = (paths.TRAINING / "train.py", "--recipe", recipe, *files)
    run(python, *train, folder=tmp_path, env=env | {"HF_HUB_OFFLINE": "1"})
    assert (out / "model" / "model.safetensors").is_file()


def test_serving(tmp_path, tiny_model_dir):
    python = install(tmp_path, without_torch(paths.SERVING / "conda.yaml"), ("torch",))
    server = python.with_name("azmlinfsrv")
    port = free_port()
    command = [server, "--entry_script", paths.SERVING / "score.py", "--port", port]
    env = {"AZUREML_MODEL_DIR": str(tiny_model_dir), "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)}
    with running(command, port, tmp_path, env) as started:
        started.wait()
        connection = started.connect()
        message = {"role": "user", "content": "Who founded Microsoft?"}
        payload = {"messages": [message], "max_tokens": 4}
        connection.request("POST", "/score", json.dumps(payload))
        answer = connection.getresponse()
        assert answer.status == http.client.OK, started.log.read_text()[-3000:]
        assert json.loads(answer.read())["usage"]["completion_tokens"] > 0
        connection.close()


def test_batch(tmp_path):
    context = paths.AZURE / "batch"
    base = re.sub(r"#.*", "", (context / "requirements.txt").read_text()).split()
    wheel = build_tool_wheel().write(tmp_path)
    python = install(tmp_path, [f"{wheel}[flow]", *base])
    copy_flow(paths.FLOWS / "qa", tmp_path / "flow")
    (tmp_path / "entry.py").write_text((context / "entry.py").read_text())
    lines = tmp_path / "000000.jsonl"
    lines.write_text(json.dumps({"line_number": 0, "inputs": {"input_data": "one"}}))
    for name in ("answers", "progress"):
        (tmp_path / name).mkdir()
    with echo_endpoint() as endpoint:
        fields = json.dumps({"endpoint": endpoint.url, "contract": "chat"})
        run(python, "-c", BATCH, fields, KEY, lines, folder=tmp_path)
    (answers,) = (tmp_path / "answers").iterdir()
    assert json.loads(answers.read_text())["output"] == {"answer": "one"}
