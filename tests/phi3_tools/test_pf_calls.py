"""The input `schema` of the tools: objects, JSON text, files of the flow, and answers that do not fit."""

from __future__ import annotations

import json

import pytest
from promptflow.exceptions import SystemErrorException, UserErrorException

from phi3_tools import ConfigError, pf_calls, pf_tools
from phi3_tools.connections import Connection
from phi3_tools.flow import Engine, load_flow
from phi3_tools.pf_calls import read_schema

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FLOW = """
inputs: {text: {type: string}, schema: {type: string, default: ""}}
outputs: {fields: {type: object, reference: "${ask.output}"}}
nodes:
- name: ask
  type: python
  source: {type: package, tool: phi3_tools.pf_tools.phi3_chat}
  inputs: {connection: phi3, question: "${inputs.text}", schema: SCHEMA}
"""


@pytest.fixture
def connection(server):
    yield Connection("phi3", {"endpoint": server.url, "contract": "chat"}, {"key": "k"})
    pf_calls._clients.close()


@pytest.fixture
def flow_with(tmp_path):
    """Return a function that writes a flow with a schema in its node, and loads it."""

    def load(schema):
        (tmp_path / "flow.dag.yaml").write_text(FLOW.replace("SCHEMA", schema))
        return load_flow(tmp_path)

    (tmp_path / "city.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "broken.json").write_text("{")
    return load


@pytest.mark.parametrize("schema", [SCHEMA, json.dumps(SCHEMA)])
def test_phi3_chat_returns_the_object(server, connection, schema):
    server.json({"output": '{"city": "Vienna"}'})
    answer = pf_tools.phi3_chat(connection, "Where?", schema=schema, stream=True)
    assert answer == {"city": "Vienna"}


def test_phi3_chat_fails_if_the_answer_does_not_fit(server, connection):
    server.json({"output": "Vienna"})
    with pytest.raises(SystemErrorException, match="the answer is not JSON") as caught:
        pf_tools.phi3_chat(connection, "Where?", schema=SCHEMA)
    assert caught.value.error_codes[-1] == "InvalidAnswerError"


def test_phi3_chat_detail_reports_the_object_or_the_text(server, connection):
    server.json({"output": '{"city": "Vienna"}'})
    detail = pf_tools.phi3_chat_detail(connection, "Where?", schema=SCHEMA)
    assert (detail["answer"], detail["error"]) == ({"city": "Vienna"}, None)


def test_phi3_chat_detail_does_not_fail_if_the_answer_does_not_fit(server, connection):
    server.json({"output": "Vienna"})
    detail = pf_tools.phi3_chat_detail(connection, "Where?", schema=SCHEMA)
    assert detail["answer"] == "Vienna"
    assert detail["error"]["type"] == "InvalidAnswerError"


def test_a_wrong_schema_is_the_users_error(connection):
    with pytest.raises(UserErrorException, match="response_format is not a valid JSON schema"):
        pf_tools.phi3_chat(connection, "Where?", schema={"type": "objekt"})


@pytest.mark.parametrize("schema", ["city.json", '"${inputs.schema}"'])
def test_the_engine_reads_the_file_of_the_flow(server, connection, flow_with, schema):
    server.json({"output": '{"city": "Vienna"}'})
    with Engine(flow_with(schema), {"phi3": connection}) as engine:
        line = engine.run({"text": "Where?", "schema": "city.json"})
    assert line.outputs == {"fields": {"city": "Vienna"}}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("none.json", "the schema file 'none.json' does not exist in the flow's folder"),
        ("broken.json", "the schema file 'broken.json' is not JSON"),
        ("../city.json", "must be inside the flow's folder"),
        ("/etc/hosts", "must be inside the flow's folder"),
    ],
)
def test_a_wrong_file_fails_the_line(connection, flow_with, schema, message):
    with Engine(flow_with(schema), {"phi3": connection}) as engine:
        assert message in str(engine.run({"text": "Where?"}).error)


def test_in_prompt_flow_the_file_is_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "s.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])  # other tests may have left their flows there
    assert read_schema("s.json") == {}
    (tmp_path / "s.json").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_schema("s.json")


@pytest.mark.parametrize("name", ["flow.dag.yaml", "flow.py", "workflow.py"])
def test_in_prompt_flow_a_schema_is_read_from_the_folder_of_the_flow_only(
    tmp_path, monkeypatch, name
):
    flow, other = tmp_path / "flow", tmp_path / "other"
    for folder in (flow, other):
        folder.mkdir()
        (folder / name).touch()
    (other / "s.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(flow), str(other)])
    with pytest.raises(ConfigError, match="'s.json' does not exist in the flow's folder"):
        read_schema("s.json")
    (flow / "s.json").write_text('{"type": "object"}')
    assert read_schema("s.json") == {"type": "object"}


@pytest.mark.parametrize("empty", [None, "", {}])
def test_an_empty_schema_is_none(empty):
    assert read_schema(empty) is None


def test_json_text_must_be_json():
    with pytest.raises(ConfigError, match="the text of the input `schema` is not JSON"):
        read_schema('{"type":')
