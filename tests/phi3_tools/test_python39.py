"""The tool wheel on CPython 3.9 with promptflow-core, as in the compute sessions of Prompt flow."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from echo_endpoint import KEY, USAGE, echo_endpoint
from phi3_ops.flows.wheel import REQUIRED_PYTHON, build_tool_wheel

LIMIT_S = 900
CODE = """
import json, sys
from promptflow.connections import CustomConnection
from phi3_tools.pf_tools import list_package_tools, phi3_chat, phi3_chat_detail

fields, key = json.loads(sys.argv[1]), sys.argv[2]
connection = CustomConnection(name="phi3", configs=fields, secrets={"key": key})
print(json.dumps({
    "python": list(sys.version_info[:2]),
    "tools": sorted(list_package_tools()),
    "answer": phi3_chat(connection, "one"),
    "pieces": list(phi3_chat(connection, "one two", stream=True)),
    "detail": phi3_chat_detail(connection, "three"),
}))
"""


def find_python39() -> Path | None:
    """Return the interpreter of CPython 3.9, from the path or from pyenv, or None."""
    if on_path := shutil.which("python3.9"):
        done = subprocess.run([on_path, "--version"], capture_output=True, timeout=60)
        if done.returncode == 0:  # pyenv's own file of that name fails without a 3.9
            return Path(on_path)
    if shutil.which("pyenv") is None:
        return None
    done = subprocess.run(["pyenv", "root"], capture_output=True, text=True, timeout=60)
    return next(iter(sorted(Path(done.stdout.strip()).glob("versions/3.9*/bin/python"))), None)


def run(*words: object) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.long
def test_the_tools_answer_on_python_39(tmp_path):
    interpreter = find_python39()
    if interpreter is None:
        pytest.skip("CPython 3.9 is not installed")
    run(interpreter, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    wheel = build_tool_wheel().write(tmp_path)
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[promptflow]")
    with echo_endpoint() as endpoint:
        endpoint.may_finish.set()
        fields = {"endpoint": endpoint.url, "contract": "chat"}
        result = json.loads(run(python, "-c", CODE, json.dumps(fields), KEY))
    assert result["python"] == [3, 9] and REQUIRED_PYTHON == ">=3.9"
    assert "phi3_tools.pf_tools.phi3_chat" in result["tools"]
    assert result["answer"] == "one"
    assert "".join(result["pieces"]) == "onetwo"
    assert result["detail"]["answer"] == "three" and result["detail"]["usage"] == USAGE
