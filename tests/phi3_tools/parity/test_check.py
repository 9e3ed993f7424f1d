"""The committed recordings of the shipped flows are answered the same; every difference is found."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from pathlib import Path

import pytest

from make_recordings import RECORDINGS, ROWS
from phi3_ops import paths
from phi3_ops.flows.content import content_hash
from phi3_tools import ConfigError
from phi3_tools.flow import load_flow
from phi3_tools.parity.check import check_recording
from phi3_tools.parity.exchanges import Exchange, group_exchanges, request_hash
from phi3_tools.parity.recording import read_recording, write_recording
from phi3_tools.parity.subjects import engine_subject, exported_subject


def check(recording, at_once=32):
    flow = load_flow(paths.FLOWS / recording.flow["name"])
    (report,) = check_recording(recording, [lambda: engine_subject(flow)], at_once=at_once)
    return report


@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_engine_answers_as_prompt_flow_did(name):
    recording = read_recording(RECORDINGS / name)
    assert recording.engine.startswith("promptflow ")
    assert recording.flow["sha256"] == content_hash(paths.FLOWS / name), (
        "run tests/support/make_recordings.py after a new version of a flow"
    )
    report = check(recording)
    assert [str(each) for each in report.differences] == []
    assert report.compared > 50


def test_the_recordings_have_streams_failures_and_metrics():
    recordings = {name: read_recording(RECORDINGS / name) for name in ROWS}
    assert sum(line.streamed is not None for line in recordings["chat"].lines) == 5
    assert sum(line.error is not None for line in recordings["qa"].lines) == 2
    assert recordings["eval"].metrics["lines"] == 5
    assert recordings["judge"].metrics and recordings["judge_pairwise"].metrics


def test_recordings_contain_no_key():
    from echo_endpoint import KEY
    from judge_endpoint import KEY as JUDGE_KEY

    for name in ROWS:
        text = (RECORDINGS / name / "recording.json").read_text()
        assert KEY not in text and JUDGE_KEY not in text and "Bearer" not in text


def changed(name, change):
    content = json.loads((RECORDINGS / name / "recording.json").read_text())
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda c: c["lines"][0]["outputs"].update(answer="other"), "outputs.answer"),
        (lambda c: c["lines"][0]["streamed"].__setitem__(1, "other"), "streamed text"),
        (lambda c: c["lines"][3]["error"].__setitem__(-1, "Other"), "error"),
        (lambda c: c["lines"][0]["requests"].append("0" * 32), "requests"),
        (lambda c: c["lines"][0]["outputs"].update(further=1), "outputs.further"),
        (lambda c: c["exchanges"].pop(c["lines"][0]["requests"][0]), "the request"),
    ],
    ids=["output", "stream", "error", "requests", "missing output", "unknown request"],
)
def test_every_difference_is_found(tmp_path, change, what):
    (tmp_path / "recording.json").write_text(json.dumps(changed("chat", change)))
    report = check(read_recording(tmp_path), at_once=1)
    assert any(each.what.startswith(what) for each in report.differences), report.differences
    assert all("\n" not in str(each) for each in report.differences)


def test_a_different_metric_is_found():
    recording = read_recording(RECORDINGS / "eval")
    metrics = {**copy.deepcopy(recording.metrics), "exact_match": 0.125}
    report = check(dataclasses.replace(recording, metrics=metrics), at_once=1)
    assert [each.what for each in report.differences] == ["metrics"]


def test_a_recording_is_read_as_written(tmp_path):
    recording = read_recording(RECORDINGS / "chat")
    write_recording(tmp_path, recording)
    assert read_recording(tmp_path) == recording


@pytest.mark.parametrize(
    "text", ["{", "[]", "[" * 200_000, '{"format": 2}', '{"format": 1}', "\0\0"], ids=range(6)
)
def test_another_file_is_not_a_recording(tmp_path, text):
    (tmp_path / "recording.json").write_text(text)
    with pytest.raises(ConfigError, match="is not a recording of format 1"):
        read_recording(tmp_path)
    with pytest.raises(ConfigError, match="cannot read .*none"):
        read_recording(Path(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flow", "chat"),
        ("engine", 3),
        ("connections", {"phi3": []}),
        ("lines", {"inputs": {}, "outputs": {}, "error": None}),
        ("lines", [{"inputs": [], "outputs": {}, "error": None}]),
        ("lines", [{"inputs": {}, "outputs": {}, "error": 3}]),
        ("exchanges", {"a": [{"status": "200", "content_type": "", "body": ""}]}),
        ("metrics", []),
    ],
)
def test_a_recording_with_a_field_of_another_type(tmp_path, name, value):
    content = json.loads((RECORDINGS / "chat" / "recording.json").read_text(encoding="utf-8"))
    (tmp_path / "recording.json").write_text(json.dumps({**content, name: value}))
    with pytest.raises(ConfigError, match="is not a recording of format 1"):
        read_recording(tmp_path)


def test_the_hash_of_a_request_ignores_the_order_of_keys():
    same = request_hash("/score", "", b'{"a": 1, "b": 2}')
    assert request_hash("/score", "", b'{"b": 2, "a": 1}') == same
    others = [request_hash("/v1", "", b'{"a": 1, "b": 2}'), request_hash("/score", "d", b"{}")]
    assert same not in others


def test_repeated_answers_are_kept_once():
    busy, done = Exchange(429, "application/json", "{}"), Exchange(200, "application/json", "{}")
    grouped = group_exchanges([("a", busy), ("a", done), ("b", done), ("a", done)])
    assert grouped == {"a": [busy, done], "b": [done]}


def exported_folder(folder, text):
    folder.mkdir()
    (folder / "flow.py").write_text(text)
    return folder


@pytest.fixture
def forgotten_module():
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("flow", None)


def test_any_exception_is_a_difference_of_its_line(tmp_path, forgotten_module):
    text = "INPUTS = ()\n\n\nasync def run_line(values):\n    raise KeyError('x')\n"
    folder = exported_folder(tmp_path / "out", text)
    recording = read_recording(RECORDINGS / "eval")
    (report,) = check_recording(recording, [lambda: exported_subject(folder)], at_once=1)
    assert report.differences[0].actual == ["KeyError: 'x'"]


def test_a_module_of_another_folder_is_refused(tmp_path, forgotten_module):
    exported_subject(exported_folder(tmp_path / "first", "INPUTS = ()\n"))
    second = exported_folder(tmp_path / "second", "INPUTS = ()\n")
    with pytest.raises(
        ConfigError, match="the module flow is .*first/flow.py, and not of .*second"
    ):
        exported_subject(second)
    third = exported_folder(tmp_path / "third", "1 / 0\n")
    sys.modules.pop("flow")
    with pytest.raises(ConfigError, match="cannot be imported: ZeroDivisionError"):
        exported_subject(third)
