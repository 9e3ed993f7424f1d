"""The staged copy of a flow: which flows have one, and which files it has."""

from __future__ import annotations

import json

import pytest
import yaml

from phi3_ops.errors import OpsError
from phi3_ops.flows.lock import LOCK_FILE, lock_flows, read_lock
from phi3_ops.publish.stage import (
    REQUIREMENTS_FILE,
    TOOLS_FILE,
    StagedFile,
    display_name,
    require_locked,
    stage_flow,
    staged_files,
    staged_flow,
)


def edit_dag(home, **changes):
    dag = home / "chat" / "flow.dag.yaml"
    dag.write_text(yaml.safe_dump(yaml.safe_load(dag.read_text()) | changes))


# -- locked flows ------------------------------------------------------------------------------------


def test_a_locked_flow(home):
    lock_flows(home)
    state = require_locked("chat", home)
    assert display_name(state) == "chat-v1.0.0"


def test_a_flow_that_does_not_exist(home):
    with pytest.raises(OpsError, match="contain a flow 'talk'. The flows in it are chat"):
        require_locked("talk", home)


def test_a_flow_that_is_not_locked(home):
    with pytest.raises(OpsError, match="chat 1.0.0 is not locked. Run `phi3 flow lock`."):
        require_locked("chat", home)


def test_a_flow_that_has_changed(home):
    lock_flows(home)
    (home / "chat" / "new.txt").write_text("x")
    with pytest.raises(OpsError, match="locked with other content: chat 1.0.0"):
        require_locked("chat", home)


def test_a_flow_that_was_locked_with_other_tools(home):
    lock_flows(home)
    lock = json.loads((home / LOCK_FILE).read_text())
    lock["chat"]["1.0.0"]["tools"] = "0.0.1"
    (home / LOCK_FILE).write_text(json.dumps(lock))
    assert read_lock(home)["chat"]["1.0.0"].tools == "0.0.1"
    with pytest.raises(OpsError, match="with the tools of phi3-promptflow 0.0.1. .* is installed"):
        require_locked("chat", home)


# -- the copy ----------------------------------------------------------------------------------------


def test_the_copy_has_the_flow_its_tools_and_requirements(home):
    (home / "chat" / ".env").write_text("KEY=x")
    lock_flows(home)
    with staged_flow(require_locked("chat", home)) as folder:
        assert folder.name == "chat-v1.0.0"
        names = {file.path for file in staged_files(folder)}
        (wheel,) = (name for name in names if name.endswith(".whl"))
        assert names == {"flow.dag.yaml", "samples.jsonl", REQUIREMENTS_FILE, TOOLS_FILE, wheel}
        assert (folder / REQUIREMENTS_FILE).read_text() == f"./{wheel}[promptflow]\n"
        dag = (folder / "flow.dag.yaml").read_bytes()
        assert dag.startswith((home / "chat" / "flow.dag.yaml").read_bytes())
        assert yaml.safe_load(dag)["environment"] == {"python_requirements_txt": REQUIREMENTS_FILE}
    assert not folder.exists()


def test_the_flows_own_requirements_come_first(home, tmp_path):
    (home / "chat" / REQUIREMENTS_FILE).write_text("jinja2")  # without a line end
    stage_flow(home / "chat", tmp_path / "copy")
    first, second = (tmp_path / "copy" / REQUIREMENTS_FILE).read_text().splitlines()
    assert first == "jinja2" and second.endswith(".whl[promptflow]")


def test_the_flows_own_environment_stays(home, tmp_path):
    edit_dag(home, environment={"image": "mine"})
    stage_flow(home / "chat", tmp_path / "copy")
    dag = (tmp_path / "copy" / "flow.dag.yaml").read_bytes()
    assert dag == (home / "chat" / "flow.dag.yaml").read_bytes()


def test_a_tool_that_is_not_installed_is_refused(home, tmp_path):
    dag = home / "chat" / "flow.dag.yaml"
    dag.write_text(dag.read_text().replace("phi3_tools.pf_tools.phi3_chat", "phi3_tools.nothing"))
    with pytest.raises(OpsError, match="uses phi3_tools.nothing, which is not installed"):
        stage_flow(home / "chat", tmp_path / "copy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": 3}, "is refused: inputs: Not a valid mapping"),
        ({"nodes": 3}, "is refused: 'int' object is not iterable"),
        (
            {
                "nodes": [
                    {"name": "a", "type": "python", "source": {"type": "code", "path": "x.py"}}
                ]
            },
            "is refused: nodes.0.source.path: Generate tool meta failed",
        ),
    ],
)
def test_a_flow_that_promptflow_refuses(home, tmp_path, changes, message):
    edit_dag(home, **changes)
    with pytest.raises(OpsError, match=message) as caught:
        stage_flow(home / "chat", tmp_path / "copy")
    assert caught.value.fix == f"See `pf flow validate --source {home / 'chat'}`."


def test_a_node_with_a_malformed_source_has_no_tool(home, tmp_path):
    edit_dag(home, nodes=[{"name": "a", "type": "python", "source": 3}])
    stage_flow(home / "chat", tmp_path / "copy")


def test_a_key_in_a_file_is_refused(endpoint, home, tmp_path):
    from echo_endpoint import KEY

    (home / "chat" / "notes.txt").write_text(KEY)
    with pytest.raises(OpsError, match="notes.txt contains the key of phi3"):
        stage_flow(home / "chat", tmp_path / "copy")


def test_files_are_listed_with_their_sizes(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("123")
    (tmp_path / "a").write_text("")
    assert staged_files(tmp_path) == [StagedFile("a", 0), StagedFile("b/c", 3)]
