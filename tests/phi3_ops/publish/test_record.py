"""`phi3 flow record` and `phi3 flow parity`: recordings of both engines, and exit codes."""

from __future__ import annotations

import base64
import json
from http.server import ThreadingHTTPServer
from urllib.parse import quote

import pytest
import requests

from echo_endpoint import KEY, echo_endpoint
from flow_folders import write_echo_flow
from loopback import JsonHandler, running
from phi3_ops.cli import main
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.publish.record import Recorder, _recorder
from phi3_tools import Phi3Client, Settings
from phi3_tools.client import KeyAuth
from phi3_tools.connections import FILE_VARIABLE
from phi3_tools.parity.exchanges import loopback_server
from phi3_tools.parity.recording import read_recording

ROWS = [{"question": "one two"}, {"question": "fail"}, {"question": "ü"}]
TOOL = """\
from phi3_tools.flow import tool


@tool
def echo(text: str) -> str:
    return text + CHANGED
"""


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({**row, "chat_history": []}) + "\n" for row in ROWS))
    return file


@pytest.fixture
def echo():
    with echo_endpoint() as server:
        server.may_finish.set()
        save_connection("recorded", {"endpoint": server.url, "max_attempts": "1"}, KEY)
        yield server
        delete_connection("recorded")


@pytest.mark.parametrize("engine", ["phi3", "promptflow"])
def test_a_recording_is_replayed_without_its_endpoint(echo, data, tmp_path, capsys, engine):
    out = tmp_path / "recording"
    words = ["flow", "record", "chat", "--data", str(data), "--out", str(out)]
    assert main([*words, "--connection", "recorded", "--engine", engine]) == 0
    assert "recorded 3 lines (1 failed, 2 streamed)" in capsys.readouterr().out
    recording = read_recording(out)
    fields = {"endpoint": "/phi3/score", "contract": "chat", "template": "client"}
    assert recording.connections == {"phi3": fields}
    assert KEY not in (out / "recording.json").read_text()
    asked = len(echo.requests)
    assert main(["flow", "parity", str(out)]) == 0
    assert "engine: equal" in capsys.readouterr().out
    assert len(echo.requests) == asked


def test_a_changed_flow_is_different(tmp_path, capsys):
    flow = write_echo_flow(tmp_path / "echo", TOOL.replace("CHANGED", "''"))
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "a"}\n')
    out = tmp_path / "recording"
    words = ["flow", "record", str(flow), "--data", str(data), "--out", str(out)]
    assert main([*words, "--engine", "phi3"]) == 0
    assert main(["flow", "parity", str(out), "--flow", str(flow)]) == 0
    (flow / "echo.py").write_text(TOOL.replace("CHANGED", "'!'"))
    capsys.readouterr()
    assert main(["flow", "parity", str(out), "--flow", str(flow)]) == 1
    captured = capsys.readouterr()
    assert 'line 0, outputs.text: recorded "a", now "a!"' in captured.out
    assert "their content differs" in captured.err


COUNT = """\
from phi3_tools.flow import log_metric, tool


@tool
def count(texts: list) -> int:
    log_metric("lines", len(texts))
    return {"1": 1}[CHANGED]
"""


@pytest.mark.parametrize("engine", ["phi3", "promptflow"])
def test_an_aggregation_that_fails_is_recorded_with_its_error(tmp_path, capsys, engine):
    flow = write_echo_flow(tmp_path / "echo", TOOL.replace("CHANGED", "''"))
    node = """\
- name: count
  type: python
  source: {type: code, path: count.py}
  inputs: {texts: "${echo.output}"}
  aggregation: true
"""
    dag = flow / "flow.dag.yaml"
    dag.write_text(dag.read_text() + node)
    (flow / "count.py").write_text(COUNT.replace("CHANGED", "'2'"))
    data, out = tmp_path / "rows.jsonl", tmp_path / "recording"
    data.write_text('{"text": "a"}\n')
    words = ["flow", "record", str(flow), "--data", str(data), "--out", str(out)]
    assert main([*words, "--engine", engine]) == 0
    recording = read_recording(out)
    assert recording.metrics == {"lines": 1}
    assert recording.metrics_error == ["UserError", "ToolExecutionError"]
    assert main(["flow", "parity", str(out), "--flow", str(flow)]) == 0
    (flow / "count.py").write_text(COUNT.replace("CHANGED", "'1'"))
    assert main(["flow", "parity", str(out), "--flow", str(flow)]) == 1
    assert "error of the aggregation" in capsys.readouterr().out


def test_nothing_to_compare_is_exit_code_2(tmp_path, capsys):
    assert main(["flow", "parity", str(tmp_path)]) == 2
    assert "phi3 flow record" in capsys.readouterr().err


def test_a_connection_that_does_not_exist_writes_nothing(data, tmp_path, capsys):
    out = tmp_path / "recording"
    words = ["flow", "record", "chat", "--data", str(data), "--out", str(out)]
    assert main([*words, "--connection", "nowhere"]) == 1
    assert "'nowhere' does not exist" in capsys.readouterr().err and not out.exists()


def _record_echo(tmp_path, *words, name="echo"):
    """Record a flow without endpoint into `tmp_path / "recording"`, and return the exit code."""
    flow = tmp_path / name
    if not flow.exists():
        write_echo_flow(flow, TOOL.replace("CHANGED", "''"))
    data = tmp_path / "rows.jsonl"
    data.write_text('{"question": "a", "other": 1}\n')
    out = str(tmp_path / "recording")
    command = ["flow", "record", str(flow), "--data", str(data), "--out", out, "--engine", "phi3"]
    return main([*command, *words])


MAPPING = ("--column-mapping", "text=${data.question}")


def test_an_input_without_a_column_is_refused(tmp_path, capsys):
    assert _record_echo(tmp_path) == 1
    error = capsys.readouterr().err
    assert "the input 'text'" in error and "has no column" in error and "question" in error
    assert not (tmp_path / "recording").exists()


def test_columns_are_mapped_to_inputs(tmp_path):
    assert _record_echo(tmp_path, *MAPPING) == 0
    assert read_recording(tmp_path / "recording").lines[0].inputs == {"text": "a"}
    assert _record_echo(tmp_path, *MAPPING) == 0  # the same flow: the recording is replaced


@pytest.mark.parametrize("change", ["name", "content"])
def test_a_recording_of_another_flow_is_replaced_only_with_force(tmp_path, capsys, change):
    assert _record_echo(tmp_path, *MAPPING) == 0
    before = (tmp_path / "recording/recording.json").read_bytes()
    name = "other" if change == "name" else "echo"
    if change == "content":
        (tmp_path / "echo/echo.py").write_text(TOOL.replace("CHANGED", "'!'"))
    assert _record_echo(tmp_path, *MAPPING, name=name) == 1
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "recording/recording.json").read_bytes() == before
    assert _record_echo(tmp_path, *MAPPING, "--force", name=name) == 0
    assert (tmp_path / "recording/recording.json").read_bytes() != before


def test_a_file_that_is_not_a_recording_is_never_replaced(tmp_path, capsys):
    (tmp_path / "recording").mkdir()
    file = tmp_path / "recording/recording.json"
    file.write_text("{}")
    assert _record_echo(tmp_path, *MAPPING, "--force") == 1
    assert "is not a recording of phi3" in capsys.readouterr().err and file.read_text() == "{}"


def test_a_connection_of_another_service_is_refused_with_its_node(
    data, tmp_path, capsys, monkeypatch
):
    file = tmp_path / "connections.json"
    entry = {"configs": {"api_base": "https://search.example"}, "secrets": {"api_key": KEY}}
    file.write_text(json.dumps({"search": entry}))
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    words = ["flow", "record", "chat", "--data", str(data), "--out", str(tmp_path / "out")]
    assert main([*words, "--connection", "search"]) == 1
    text = "node 'chat' uses 'search', which is not a connection to a Phi-3 endpoint"
    assert text in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_recorder_adds_the_key_only_to_requests_of_its_own_run():
    first, second = loopback_server(Recorder), loopback_server(Recorder)
    with first.running(), second.running():
        assert first.key != second.key
        for key in ("", "recording", second.key):
            headers = {"Authorization": f"Bearer {key}"}
            answer = requests.post(f"{first.address}/phi3/score", headers=headers, timeout=30)
            assert answer.status_code == 401
    assert not first.requests and first.failure is None


LONG_KEY = 'S3cret/Key+ABC"DEF<GH&IJKLMNOP=='


class _KeyEcho(JsonHandler):
    """Speaks the openai contract; each answer has the key in several encodings."""

    def do_POST(self) -> None:
        self.read_body()
        self.server.asked.append(self.path)
        sent = self.headers["authorization"]
        forms = [
            f'"{LONG_KEY}"',
            quote(LONG_KEY, safe=""),
            base64.b64encode(sent.encode()).decode(),
        ]
        message = {"role": "assistant", "content": " ".join(forms)}
        body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("content-type", f"application/json; key={LONG_KEY}")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize("path", ["", "/v1", "/v1/chat/completions"])
def test_requests_go_to_the_url_of_the_contract_and_no_form_of_the_key_is_kept(path):
    with running(server := ThreadingHTTPServer(("127.0.0.1", 0), _KeyEcho)):
        server.asked = []
        endpoint = f"http://127.0.0.1:{server.server_port}{path}"
        settings = Settings(endpoint, KeyAuth(LONG_KEY), contract="openai")
        with _recorder({"phi3": settings}) as (recorder, replaced, _fields):
            with Phi3Client.from_connection(replaced["phi3"]) as client:
                client.chat("hi")
            ((_digest, exchange),) = recorder.exchanges
    assert server.asked == ["/v1/chat/completions"]
    kept = exchange.content_type + json.loads(exchange.body)["choices"][0]["message"]["content"]
    parts = [LONG_KEY[n : n + 8] for n in range(len(LONG_KEY) - 7)]
    encoded = base64.b64encode(f"Bearer {LONG_KEY}".encode()).decode()[12:-4]
    assert not [part for part in [*parts, quote(LONG_KEY, safe="")[:12], encoded] if part in kept]


@pytest.mark.parametrize("form", ["path", "name"])
def test_a_recording_never_leads_to_the_code_of_another_folder(tmp_path, capsys, monkeypatch, form):
    assert _record_echo(tmp_path, *MAPPING) == 0
    assert f"--flow {tmp_path / 'echo'}" in capsys.readouterr().out
    (tmp_path / "echo/echo.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    file = tmp_path / "recording/recording.json"
    content = json.loads(file.read_text())
    content["flow"]["name"] = str(tmp_path / "echo") if form == "path" else "echo"
    file.write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    assert main(["flow", "parity", str(file)]) == 1
    error = capsys.readouterr().err
    assert ("not a valid name" if form == "path" else "--flow") in error
    assert not (tmp_path / "ran").exists()
