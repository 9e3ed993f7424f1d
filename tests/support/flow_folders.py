"""Folders of small flows, for tests of what is in them."""

from __future__ import annotations

from pathlib import Path

DAG = """tags: {version: VERSION}
inputs: {q: {type: string}}
nodes: []
"""


def write_flow(folder: Path, version: str = "1.0.0", **files: str) -> Path:
    """Write a flow without nodes, and one Python file for each further argument; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flow.dag.yaml").write_text(DAG.replace("VERSION", version))
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


ECHO_DAG = """\
inputs: {text: {type: string}}
outputs: {text: {type: string, reference: "${echo.output}"}}
nodes:
- name: echo
  type: python
  source: {type: code, path: echo.py}
  inputs: {text: "${inputs.text}"}
"""


# Returns its input; the text "fail" fails.
ECHO_TOOL = """\
from promptflow.core import tool


@tool
def echo(text: str) -> str:
    if text == "fail":
        raise ValueError("asked to fail")
    return text
"""


def write_echo_flow(folder: Path, tool: str = ECHO_TOOL) -> Path:
    """Write a flow of one node, `echo`, with this code of its tool; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flow.dag.yaml").write_text(ECHO_DAG)
    (folder / "echo.py").write_text(tool)
    return folder
