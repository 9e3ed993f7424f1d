"""`phi3 flow record` and `phi3 flow parity`: recordings of both engines, and exit codes."""

from __future__ import annotations

import json

import pytest

from echo_endpoint import KEY, echo_endpoint
from flow_folders import write_echo_flow
from phi3_ops.cli import main
from phi3_ops.pf.connections import delete_connection, save_connection
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


def test_nothing_to_compare_is_exit_code_2(tmp_path, capsys):
    assert main(["flow", "parity", str(tmp_path)]) == 2
    assert "phi3 flow record" in capsys.readouterr().err


def test_a_connection_that_does_not_exist_writes_nothing(data, tmp_path, capsys):
    out = tmp_path / "recording"
    words = ["flow", "record", "chat", "--data", str(data), "--out", str(out)]
    assert main([*words, "--connection", "nowhere"]) == 1
    assert "'nowhere' does not exist" in capsys.readouterr().err and not out.exists()
