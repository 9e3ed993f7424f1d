"""What `phi3 flow export` writes into its files: requirements, variables, names."""

from __future__ import annotations

import json

import pytest

from exports import engine_result, exported
from phi3_ops.errors import OpsError
from phi3_ops.publish import export_flow
from phi3_ops.publish.export_files import _require_valid_python, _requirement_lines
from phi3_tools.flow import Engine, load_flow

CODE = """\
import os

from phi3_tools.flow import tool

WHEN_IMPORTED = os.environ["FLOW_STYLE"]


@tool
def answer(text: str) -> str:
    return f"{WHEN_IMPORTED} {text}"
"""


def write_flow(folder, code, name="answer", **more):
    node = {
        "name": name,
        "type": "python",
        "source": {"type": "code", "path": "answer.py"},
        "inputs": {"text": "${inputs.text}"},
    }
    content = {
        "inputs": {"text": {"type": "string"}},
        "outputs": {"text": {"type": "string", "reference": f"${{{name}.output}}"}},
        "nodes": [node],
    }
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(json.dumps({**content, **more}))
    (folder / "answer.py").write_text(code)
    return folder


def test_a_node_reads_the_variables_of_the_flow_when_it_is_imported(tmp_path, monkeypatch):
    monkeypatch.delenv("FLOW_STYLE", raising=False)
    variables = {"FLOW_STYLE": {"a": [1]}, "FLOW_HOME": "${HOME}"}
    flow = write_flow(tmp_path / "flow", CODE, environment_variables=variables)
    export_flow(flow, "fastapi", tmp_path / "first")  # imports the node
    for name in variables:
        monkeypatch.setenv(name, "before")
    with Engine(load_flow(flow)) as engine:
        expected = engine_result(engine, {"text": "x"})
    for name in variables:
        monkeypatch.setenv(name, "before")
    with exported(flow, "fastapi", tmp_path / "out") as export:
        assert export.run({"text": "x"}) == expected == {"text": '{"a": [1]} x'}
    assert (tmp_path / "out" / "flow.py").read_text().count("# noqa: E402") == 1


def requirements(tmp_path, text, **others):
    flow = write_flow(tmp_path / "flow", CODE, environment_variables={"FLOW_STYLE": "a"})
    (flow / "requirements.txt").write_text(text)
    for name, content in others.items():
        (flow / f"{name}.txt").write_text(content)
    export_flow(flow, "fastapi", tmp_path / "out")
    return (tmp_path / "out" / "requirements.txt").read_text().splitlines()


def test_the_ranges_of_the_flow_are_kept(tmp_path):
    lines = requirements(
        tmp_path, "numpy<1\nrequests>=2,<2.20\nPyYAML>5\nurllib3\nunknown-package~=1.0\n-i URL\n"
    )
    assert {"numpy<1", "requests>=2,<2.20", "unknown-package~=1.0", "-i URL"} <= set(lines)
    assert any(line.startswith("PyYAML==") for line in lines)
    assert [line for line in lines if line.startswith("urllib3")] == ["urllib3==2.8.0"]
    assert sum(line.startswith("requests") for line in lines) == 1


def test_promptflow_is_left_out_of_files_that_the_requirements_name(tmp_path):
    lines = requirements(
        tmp_path,
        "-r more.txt\nnumpy<1\n",
        more="promptflow[azure]>=1\n--requirement=last.txt\n-r requirements.txt\n",
        last="promptflow-tools\nunknown-package\n",
    )
    assert {"numpy<1", "unknown-package"} <= set(lines)
    assert not any("promptflow" in line or line.startswith("-") for line in lines[1:])


def test_a_requirements_file_outside_the_flow_is_refused(tmp_path):
    (tmp_path / "other.txt").write_text("numpy\n")
    flow = write_flow(tmp_path / "flow", CODE)
    for name in ("../other.txt", "none.txt"):
        (flow / "requirements.txt").write_text(f"-r {name}\n")
        with pytest.raises(OpsError, match="names .*txt, which is not a file of the flow"):
            list(_requirement_lines(flow, "requirements.txt"))


def test_code_that_is_not_valid_is_refused():
    with pytest.raises(OpsError, match=r"flow\.py would not be valid Python: .*line 1"):
        _require_valid_python({"flow.py": b"def (:\n", "flow.txt": b"("})


@pytest.mark.parametrize("name", ["EXPORT.json", "swagger.json", "Dockerfile"])
def test_a_file_of_a_generated_name_is_refused(name, tmp_path):
    flow = write_flow(tmp_path / "flow", CODE, environment_variables={"FLOW_STYLE": "a"})
    (flow / name).write_text("{}")
    with pytest.raises(OpsError, match=f"{name} has the name of a generated file"):
        export_flow(flow, "fastapi", tmp_path / "out")
    assert not (tmp_path / "out").exists()
