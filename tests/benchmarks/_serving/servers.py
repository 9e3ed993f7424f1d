"""Starts score.py and its peers, all with two threads and room for 16 requests at once.

Settings of the peers:
    llama.cpp: its own server; 16 slots of 1,280 tokens, continuous batching, flash attention, prompt
        caching in the slots, float16 keys and values.
    OpenVINO GenAI: ContinuousBatchingPipeline with prefix caching and a cache of 16 x 1,280 tokens.
    transformers: `transformers serve --continuous-batching`, float32.
    MLflow's pyfunc: Azure's server with its default settings, as in the tutorials.
"""

from __future__ import annotations

import contextlib
import http.client
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from inference_server import Server, free_port, running, started

from .models import Models
from .prompts import Messages

THREADS, SLOTS = 2, 16
PEERS = Path(__file__).resolve().parents[2] / "support" / "peers"
CHAT_PATH = "/v1/chat/completions"
OURS = {
    "PHI3_ENGINE": "openvino",
    "WORKER_COUNT": "1",
    "GUNICORN_CMD_ARGS": "--threads 16 --keep-alive 75",
}
# Waiting threads give up their core; otherwise torch is many times slower on a busy machine.
PYFUNC = {"WORKER_COUNT": "1", "GUNICORN_CMD_ARGS": "", "OMP_WAIT_POLICY": "PASSIVE"}
PYFUNC_SCRIPT = """
import json, os
import mlflow

def init():
    global model
    model = mlflow.pyfunc.load_model(os.environ["AZUREML_MODEL_DIR"])

def run(body):
    request = json.loads(body)
    return model.predict(request["input_data"], params=request.get("params"))
"""


# Keys and values of 16 x 1,280 tokens in 16 bits, as the peers have.
CACHE_MIB = 450
WITH_SCHEMA = "ours with a schema"
# Its answers never end before the limit.
SCHEMA = {
    "type": "array",
    "minItems": 1_000,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "kind": {"enum": ["person", "place", "thing"]},
            "year": {"type": "integer", "minimum": 0, "maximum": 2100},
        },
        "required": ["name", "kind", "year"],
        "additionalProperties": False,
    },
}


@dataclass
class Target:
    """A running server.

    Attributes:
        name: name for the tables.
        server: its process and its port.
        path: path of the requests.
        fields: fields of each request besides the messages and the limit.
        streams: whether it sends server-sent events; if not, it gets MLflow's list of texts.
        cold_s: seconds from its start to the first answer.
    """

    name: str
    server: Server
    path: str = CHAT_PATH
    fields: dict[str, Any] = field(default_factory=dict)
    streams: bool = True
    cold_s: float = 0.0

    def connect(self, timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=timeout_s)

    def payload(self, messages: Messages, tokens: int) -> dict[str, Any]:
        """Return the body of a request for a greedy answer of so many tokens."""
        if self.streams:
            return {"messages": messages, "max_tokens": tokens, "stream": True, **self.fields}
        # pyfunc gets text. The template is ChatML, as the model's own.
        turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        params = {"max_new_tokens": tokens, "min_new_tokens": tokens}
        return {"input_data": [f"{turns}<|im_start|>assistant\n"], "params": params}

    def memory_mib(self) -> float:
        """Return the memory of all processes of the server. Shared pages count once (PSS)."""
        process = psutil.Process(self.server.process.pid)
        processes = [process, *process.children(recursive=True)]
        return sum(process.memory_full_info().pss for process in processes) / 2**20

    def peak_mib(self) -> float:
        """Return the largest memory that the server's processes have had, each counted alone."""
        process = psutil.Process(self.server.process.pid)
        processes = [process, *process.children(recursive=True)]
        return sum(_peak_kib(process.pid) for process in processes) / 1024


def _peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


Start = Callable[[Models, Path], contextlib.AbstractContextManager[Target]]


def ours(precision: str, computation: str = "fp32", with_schema: bool = False) -> Start:
    """Return the function that starts score.py in Azure's inference server.

    With a schema, each request asks for JSON that matches SCHEMA.
    """
    name = "ours" if computation == "fp32" else f"ours in {computation}"
    if precision == "fp32":
        name = "ours in fp32"
    fields: dict[str, Any] = {"temperature": 0, "stream_options": {"include_usage": True}}
    if with_schema:
        name = WITH_SCHEMA
        json_schema = {"name": "things", "schema": SCHEMA}
        fields["response_format"] = {"type": "json_schema", "json_schema": json_schema}

    @contextlib.contextmanager
    def start(models: Models, home: Path) -> Iterator[Target]:
        exports = models.folder / "exports"
        exports.mkdir(parents=True, exist_ok=True)
        settings = {**OURS, "PHI3_EXPORT_CACHE": str(exports)}
        settings |= {"PHI3_PRECISION": precision, "PHI3_COMPUTATION": computation}
        settings["PHI3_CACHE_MIB"] = str(CACHE_MIB * (2 if precision == "fp32" else 1))
        with started(models.hf, home, **settings) as server:
            server.wait()  # the first start exports the model, which is not a part of a cold start
        with started(models.hf, home, **settings) as server:
            yield Target(name, server, "/score", fields)

    return start


def pyfunc() -> Start:
    """Return the function that starts MLflow's pyfunc in Azure's inference server."""

    @contextlib.contextmanager
    def start(models: Models, home: Path) -> Iterator[Target]:
        script = home / "pyfunc.py"
        script.write_text(PYFUNC_SCRIPT)
        with started(models.mlflow, home, script, **PYFUNC) as server:
            yield Target("MLflow pyfunc", server, "/score", streams=False)

    return start


def llama_cpp(kind: str) -> Start:
    """Return the function that starts llama.cpp's server with a GGUF file of this type."""
    fields = {"temperature": 0, "ignore_eos": True, "stream_options": {"include_usage": True}}

    def command(models: Models, port: int) -> list[Any]:
        script = PEERS / "llama_cpp_server.py"
        return [sys.executable, script, models.gguf(kind), port, THREADS, SLOTS]

    return _peer(f"llama.cpp {kind}", command, CHAT_PATH, fields)


def openvino(kind: str, *properties: str) -> Start:
    """Return the function that starts OpenVINO GenAI with a GGUF file of this type."""

    def command(models: Models, port: int) -> list[Any]:
        script = PEERS / "openvino_server.py"
        return [sys.executable, script, models.gguf(kind), port, THREADS, SLOTS, *properties]

    return _peer(f"OpenVINO {kind}", command, "/", {})


def transformers() -> Start:
    """Return the function that starts transformers' own server with continuous batching."""

    def command(models: Models, port: int) -> list[Any]:
        program = Path(sys.prefix) / "bin" / "transformers"
        options = ["--continuous-batching", "--device", "cpu", "--dtype", "float32"]
        sizes = ["--cb-num-blocks", "192", "--cb-max-batch-tokens", "512"]
        address = ["--host", "127.0.0.1", "--port", port]
        return [program, "serve", models.hf, *options, *sizes, *address]

    return _peer("transformers", command, CHAT_PATH, {"temperature": 0})


def _peer(
    name: str, command: Callable[[Models, int], list[Any]], path: str, fields: dict[str, Any]
) -> Start:
    @contextlib.contextmanager
    def start(models: Models, home: Path) -> Iterator[Target]:
        port = free_port()
        env = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(THREADS)}
        with running(command(models, port), port, home, env) as server:
            yield Target(name, server, path, fields)

    return start
