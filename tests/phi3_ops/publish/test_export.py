"""`phi3 flow export`: what it writes again, what it never replaces, and what it refuses."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import pytest

from phi3_ops import paths
from phi3_ops.cli import main
from phi3_ops.cli.flow_export import TARGETS
from phi3_ops.errors import OpsError
from phi3_ops.flows import content_hash
from phi3_ops.publish import export_flow
from phi3_ops.publish.export_files import PACKAGES, TEMPLATES

ROOT = Path(__file__).resolve().parents[3]
RECORDINGS = ROOT / "tests" / "recordings"
PYTHON_NODE = (
    "{name: answer, type: python, source: {type: code, path: answer.py}, "
    "inputs: {text: '${inputs.text}'}}"
)
CODE = (
    "from promptflow.core import tool\n\n\n@tool\ndef answer(text: str) -> str:\n    return text\n"
)


def write_flow(folder, nodes=PYTHON_NODE, code=CODE, more="", outputs="${answer.output}"):
    """Write a flow of one input and one output; return its folder."""
    folder.mkdir()
    lines = [
        "inputs: {text: {type: string}}",
        f"outputs: {{text: {{type: string, reference: '{outputs}'}}}}",
        f"nodes: [{nodes}]",
        more,
    ]
    (folder / "flow.dag.yaml").write_text("\n".join(lines) + "\n")
    (folder / "answer.py").write_text(code)
    return folder


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_command_has_every_form():
    assert set(TARGETS) == set(PACKAGES)


def test_the_pinned_versions_are_the_tested_ones():
    pins = re.findall(r"^[^#\n].*", (TEMPLATES / "pins.txt").read_text(), re.MULTILINE)
    tested = {line.lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert pins and {pin.lower() for pin in pins} <= tested


@pytest.mark.parametrize("form", TARGETS)
@pytest.mark.parametrize("name", ["chat", "eval", "judge"])
def test_every_shipped_flow_is_exported_as_valid_code_without_promptflow(name, form, tmp_path):
    out = tmp_path / "out"
    export_flow(Path(name), form, out)
    for file in out.rglob("*.py"):
        tree = ast.parse(file.read_text())
        imported = {
            name
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not {each for each in imported if each.startswith(("promptflow", "phi3_ops"))}, file
        assert max(map(len, file.read_text().splitlines())) <= 110, file
    record = json.loads((out / "EXPORT.json").read_text())
    assert (record["flow"], record["to"]) == (name, form)
    assert record["sha256"] == content_hash(paths.FLOWS / name)
    assert set(record["files"]) == set(contents(out)) - {"EXPORT.json"}
    assert not (out / "flow.dag.yaml").exists()


def test_a_second_export_changes_nothing(tmp_path, capsys):
    words = ["flow", "export", "eval", "--to", "fastapi", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    before = contents(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    capsys.readouterr()
    assert main(words) == 0
    assert "nothing to change" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == times


def test_an_edited_file_is_replaced_with_force_only(tmp_path):
    out = tmp_path / "out"
    export_flow(Path("qa"), "fastapi", out)
    before = contents(out)
    (out / "app.py").write_text("# mine\n")
    (out / "flow.py").write_text("# mine as well\n")
    edited = contents(out)
    with pytest.raises(OpsError, match=r"app\.py and 1 more was edited after its export.*--force"):
        export_flow(Path("qa"), "fastapi", out)
    assert contents(out) == edited
    summary = export_flow(Path("qa"), "fastapi", out, force=True)
    assert sorted(summary.written) == ["app.py", "flow.py"]
    assert contents(out) == before


def test_files_of_another_form_are_removed_unless_they_were_edited(tmp_path):
    out = tmp_path / "out"
    export_flow(Path("qa"), "agent-framework", out)
    (out / "Dockerfile").write_text("# mine\n")
    (out / "notes.txt").write_text("mine")
    summary = export_flow(Path("qa"), "evaluator", out)
    assert "workflow.py" in summary.removed and summary.kept == ["Dockerfile"]
    assert (out / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OpsError, match="is not empty, and not an export"):
        export_flow(Path("qa"), "fastapi", tmp_path, force=True)
    assert list(contents(tmp_path)) == ["notes.txt"]


def test_a_record_cannot_name_files_outside(tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside.txt"
    export_flow(Path("qa"), "fastapi", out)
    outside.write_text("mine")
    record = json.loads((out / "EXPORT.json").read_text())
    record["files"]["../outside.txt"] = "0" * 64
    (out / "EXPORT.json").write_text(json.dumps(record))
    export_flow(Path("qa"), "fastapi", out)
    assert outside.read_text() == "mine"


def test_only_imports_of_promptflow_are_rewritten(tmp_path):
    code = (
        '"""Tool: from promptflow.core import tool."""\n\n'
        "import json  # stays\n"
        "from promptflow import (  # a comment\n    tool,\n    log_metric as note,\n)\n\n\n"
        "@tool\ndef answer(text: str):\n"
        "    from promptflow.tracing import trace; trace\n    return  text\n"
    )
    export_flow(write_flow(tmp_path / "own", code=code), "fastapi", tmp_path / "out")
    expected = code.replace("from promptflow import", "from phi3_tools.flow import")
    expected = expected.replace(
        "    from promptflow.tracing import", "    from phi3_tools.flow import"
    )
    assert (tmp_path / "out" / "answer.py").read_text() == expected


def test_names_that_python_cannot_import_are_changed(tmp_path):
    nodes = (
        "{name: 1st-node, type: python, source: {type: code, path: json.py}, "
        "inputs: {text: '${inputs.text}'}}, "
        "{name: answer, type: python, source: {type: code, path: my-code/2.py}, "
        "inputs: {text: '${1st-node.output}'}}"
    )
    folder = write_flow(tmp_path / "own", nodes)
    (folder / "json.py").write_text(CODE)
    (folder / "my-code").mkdir()
    (folder / "my-code" / "2.py").write_text(CODE)
    export_flow(folder, "fastapi", tmp_path / "out")
    text = (tmp_path / "out" / "flow.py").read_text()
    assert "from json_node import answer\n" in text
    assert "from my_code.node_2 import answer as answer_answer\n" in text
    assert (tmp_path / "out" / "json_node.py").is_file()


def test_a_recording_becomes_a_part_of_the_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_flow(Path("qa"), "fastapi", tmp_path / "without")
    assert "phi3 flow record qa" in (tmp_path / "without" / "test_parity.py").read_text()
    shutil.copytree(RECORDINGS / "qa", tmp_path / "recordings" / "qa")
    export_flow(Path("qa"), "fastapi", tmp_path / "with")
    recorded = (tmp_path / "with" / "recording" / "recording.json").read_bytes()
    assert recorded == (RECORDINGS / "qa" / "recording.json").read_bytes()
    assert "The recording is missing" not in (tmp_path / "with" / "test_parity.py").read_text()
    file = RECORDINGS / "qa" / "recording.json"
    export_flow(Path("qa"), "fastapi", tmp_path / "file", recording=file)
    assert (tmp_path / "file" / "recording" / "recording.json").read_bytes() == recorded
    with pytest.raises(OpsError, match="is a recording of qa .* with other content"):
        export_flow(Path("chat"), "fastapi", tmp_path / "chat", recording=RECORDINGS / "qa")
    with pytest.raises(OpsError, match="recording"):
        export_flow(Path("chat"), "fastapi", tmp_path / "chat", recording=tmp_path)


LLM = (
    "{name: answer, type: llm, source: {type: code, path: chat.jinja2}, provider: AzureOpenAI, "
    "connection: open_ai, api: chat, inputs: {deployment_name: gpt-4, max_tokens: 99, temperature: 0, "
    "text: '${inputs.text}' MORE}}"
)


def llm_flow(folder, more="", node=LLM):
    write_flow(folder, node.replace(" MORE", more))
    (folder / "chat.jinja2").write_text("system:\nBe brief.\nuser:\n{{text}}\n")
    return folder


def test_llm_nodes_become_nodes_of_phi3_prompt(tmp_path):
    folder = llm_flow(tmp_path / "own", ", presence_penalty: 0, response_format: {type: text}")
    export_flow(folder, "agent-framework", tmp_path / "out", llm="phi3")
    text = (tmp_path / "out" / "workflow.py").read_text()
    call = text[text.index("return await line.call(") :]
    assert "phi3_prompt,\n" in call and 'connection=connection("phi3")' in call
    assert "max_new_tokens=99" in call and 'text=line.inputs["text"]' in call
    assert "prompt=ANSWER_PROMPT" in call and "stream=line.stream" in call
    assert (tmp_path / "out" / "chat.jinja2").is_file()


def refused(tmp_path, folder, llm=None):
    with pytest.raises(OpsError) as caught:
        export_flow(folder, "fastapi", tmp_path / "out", llm=llm)
    assert not (tmp_path / "out").exists()
    assert "\n" not in str(caught.value) and caught.value.fix
    return str(caught.value)


def test_llm_nodes_are_refused_otherwise(tmp_path):
    message = refused(tmp_path, llm_flow(tmp_path / "own"))
    assert "node 'answer' is an llm node" in message and "--llm phi3" in message
    message = refused(tmp_path, llm_flow(tmp_path / "tools", ", tools: [1]"), "phi3")
    assert "node 'answer' sets tools" in message
    completion = LLM.replace("api: chat", "api: completion")
    message = refused(tmp_path, llm_flow(tmp_path / "completion", node=completion), "phi3")
    assert "uses the API 'completion'" in message


REFUSED = {
    "a tool of another package": (
        {
            "nodes": "{name: answer, type: python, "
            "source: {type: package, tool: other.tools.ask}, inputs: {}}"
        },
        "node 'answer'.*other.tools.ask.*",
    ),
    "an image": ({"more": "", "nodes": PYTHON_NODE, "image": True}, "type image"),
    "an include": (
        {"more": "additional_includes: [../shared.py]"},
        "shared.py.*outside the flow's folder",
    ),
    "a circle": (
        {"nodes": PYTHON_NODE.replace("${inputs.text}", "${answer.output}")},
        "answer need each other in a circle",
    ),
    "a variable of a connection": (
        {"more": "environment_variables: {KEY: '${phi3.key}'}"},
        "environment variable KEY of the flow refers to a connection|cannot be read",
    ),
    "other names of promptflow": (
        {"code": CODE.replace("import tool", "import tool, Prompty")},
        "answer.py, line 1: promptflow.core.Prompty has no successor",
    ),
    "an import of promptflow itself": (
        {"code": "import promptflow\n" + CODE},
        "answer.py, line 1: promptflow has no successor",
    ),
    "a name of a generated file": (
        {"nodes": PYTHON_NODE.replace("answer.py", "app.py"), "rename": "app.py"},
        "app.py has the name of a generated file",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_exported_is_one_line_and_nothing_is_written(what, tmp_path):
    settings, message = REFUSED[what]
    settings = dict(settings)
    is_image, name = settings.pop("image", False), settings.pop("rename", "answer.py")
    (tmp_path / "shared.py").write_text("")
    folder = write_flow(tmp_path / "own", **settings)
    (folder / "answer.py").rename(folder / name)
    if is_image:
        dag = folder / "flow.dag.yaml"
        dag.write_text(
            dag.read_text().replace("{text: {type: string}}", "{text: {type: image}}", 1)
        )
    assert re.search(message, refused(tmp_path, folder))


def test_a_flex_flow_is_refused(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "flow.flex.yaml").write_text("entry: answer:answer\n")
    assert "is not a flow" in refused(tmp_path, folder)


def test_a_folder_inside_the_flow_is_refused(tmp_path):
    folder = write_flow(tmp_path / "own")
    with pytest.raises(OpsError, match="is inside the flow's folder"):
        export_flow(folder, "fastapi", folder / "out")


def test_a_key_in_the_flow_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3_KEY", "a-secret-of-some-length")
    folder = write_flow(tmp_path / "own", code=CODE + "KEY = 'a-secret-of-some-length'\n")
    assert "answer.py contains" in refused(tmp_path, folder)


def test_a_path_that_cannot_be_written_is_found_before_the_first_is_written(tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    export_flow(Path("qa"), "fastapi", out)
    outside.mkdir()
    wheels = out / "wheels"
    shutil.move(wheels, outside / "wheels")
    wheels.symlink_to(outside / "wheels")
    (out / "app.py").unlink()
    before, wheel = contents(out), contents(outside)
    with pytest.raises(OpsError, match="wheels is a link or a file"):
        export_flow(Path("qa"), "fastapi", out, force=True)
    wheels.unlink()
    wheels.mkdir()
    (out / "flow.py").unlink()
    (out / "flow.py").mkdir()
    with pytest.raises(OpsError, match=r"flow\.py: it is a folder"):
        export_flow(Path("qa"), "fastapi", out, force=True)
    assert not (out / "app.py").exists() and contents(outside) == wheel
    assert set(contents(out)) < set(before)


def test_a_name_with_line_ends_is_refused(tmp_path):
    folder = write_flow(tmp_path / "own\nRUN touch it\n#")
    with pytest.raises(OpsError, match="own.*is not a valid name"):
        export_flow(folder, "fastapi", tmp_path / "out")
    code = CODE.replace("text: str", "text: str, c: CustomConnection").replace(
        "import tool", "import tool\nfrom promptflow.connections import CustomConnection"
    )
    node = PYTHON_NODE.replace("inputs: {", 'inputs: {c: "phi3\\nPATH=x", ')
    with pytest.raises(OpsError, match="of a connection: .phi3.*PATH=x. is not a valid name"):
        export_flow(write_flow(tmp_path / "c", node, code), "fastapi", tmp_path / "out")
    assert not (tmp_path / "out").exists()
