"""llama.cpp's server in a process of its own."""

from __future__ import annotations

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.take_home import llama_server as module
from phi3_ops.take_home.llama_server import LlamaServer, llama_server


def script(tmp_path, monkeypatch, text):
    path = tmp_path / "script.py"
    path.write_text(text)
    monkeypatch.setattr(module, "SCRIPT", path)


def test_the_address_and_the_arguments(tmp_path, monkeypatch):
    text = (
        "import os, sys\n"
        "print('loading')\n"
        "words = '-'.join(sys.argv[1:]) + os.environ['PHI3_LLAMA_KEY']\n"
        "print('listening on http://' + words, flush=True)\n"
        "print('more ' * 100_000)\n"  # does not fill the pipe
        "sys.stdin.read()\n"
    )
    script(tmp_path, monkeypatch, text)
    with llama_server(tmp_path / "m.gguf", slots=3, tokens=64, threads=2) as server:
        assert server.url == f"http://{tmp_path / 'm.gguf'}-3-64-2{server.key}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('error: bad magic'); print('bye')", "cannot load .*m.gguf: error: bad magic"),
        ("print('last words')", "cannot load .*: last words"),
        ("raise SystemExit(3)", "cannot load .*: exit code 3"),
    ],
)
def test_a_file_that_cannot_be_loaded(tmp_path, monkeypatch, text, message):
    script(tmp_path, monkeypatch, text)
    with pytest.raises(OpsError, match=message), llama_server(tmp_path / "m.gguf"):
        pass


def test_a_process_that_does_not_end_is_killed(tmp_path, monkeypatch):
    script(
        tmp_path, monkeypatch, "import time\nprint('listening on x', flush=True)\ntime.sleep(600)"
    )
    monkeypatch.setattr(module, "STOP_TIMEOUT_S", 0.1)
    with llama_server(tmp_path / "m.gguf") as server:
        assert server.url == "x"


def test_a_refusal(monkeypatch):
    import requests

    response = requests.Response()
    response.status_code, response._content = 400, b'{"error": "too long"}'
    monkeypatch.setattr(requests, "post", lambda *args, **options: response)
    with pytest.raises(OpsError, match="refused /tokenize: .*too long"):
        LlamaServer("http://x", "key").post("/tokenize", {})
