"""`serve_models`: what cannot be served, and an error of the caller."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from phi3_ops.endpoint.container import Deployment, EndpointError
from phi3_ops.endpoint.server import serve_models
from phi3_ops.errors import OpsError
from tiny_endpoint import KEY, stand_in


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ""}, "the endpoint's key is empty"),
        ({"key": " "}, "the endpoint's key is empty"),
        ({"key": "", "host": "0.0.0.0"}, "refusing to listen on 0.0.0.0 without a key"),
        ({"key": "k", "host": "192.0.2.1"}, "cannot listen on 192.0.2.1, port 0: "),
        ({"key": "k", "port": 99999}, "cannot listen on 127.0.0.1, port 99999: "),
        ({"key": "k"}, "no model"),
    ],
)
def test_an_error_is_one_line(tmp_path, options, message):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OpsError, match=message) as caught:
        serve_models([Deployment("blue", tmp_path)], **{"port": 0, **options})
    assert "\n" not in str(caught.value)


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def test_a_port_in_use_is_an_error(tmp_path, taken_port):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OpsError, match=f"port {taken_port}: Address already in use"):
        serve_models([Deployment("blue", tmp_path)], port=taken_port, key="k")


@pytest.mark.finding(
    23,
    "the model does not exist, and the port is in use",
    "the missing model is reported",
)
def test_the_model_is_checked_before_the_port(tmp_path, taken_port):
    with pytest.raises(EndpointError, match="none does not exist"):
        serve_models([Deployment("blue", tmp_path / "none")], port=taken_port, key="k")


def test_a_broken_model_is_an_error(tmp_path, tiny_model_dir):
    for file in filter(Path.is_file, tiny_model_dir.iterdir()):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(EndpointError, match="cannot be loaded: ") as caught:
        serve_models([Deployment("blue", tmp_path)], port=0, key="k")
    assert "\n" not in str(caught.value)


def test_traffic_is_checked_before_a_model_is_loaded(tmp_path):
    with pytest.raises(EndpointError, match="is 60 % in total"):
        serve_models([Deployment("blue", tmp_path, weight=60)], port=0, key="k")


def test_importing_the_module_loads_nothing_heavy():
    heavy = ("torch", "transformers", "fastapi", "starlette", "uvicorn", "phi3_tools")
    code = f"import sys, phi3_ops.endpoint; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_an_error_of_ready_ends_the_endpoint(tmp_path):
    def ready(url, runtimes):
        raise KeyError(url)

    with pytest.raises(KeyError, match="http://127.0.0.1:"):
        serve_models([stand_in(tmp_path)], port=0, key=KEY, ready=ready)
