"""`phi3 flow parity --app` with the exported service and functions, in the test's own process."""

from __future__ import annotations

import sys

import pytest

from phi3_ops import paths
from phi3_ops.cli import main
from phi3_ops.publish import export_flow

RECORDINGS = paths.FLOWS.parent / "tests" / "recordings"


@pytest.fixture(autouse=True)
def own_modules():
    """The modules of an export have common names: they are imported anew, and forgotten."""
    path, modules = list(sys.path), dict(sys.modules)
    for name in ("flow", "app", "evaluate", "score", "aggregate", "ask", "chat"):
        sys.modules.pop(name, None)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        if "export" in str(getattr(sys.modules[name], "__file__", "")).split("/"):
            del sys.modules[name]
    sys.modules.update(modules)


@pytest.mark.parametrize("name", ["qa", "eval"])
def test_an_exported_flow_answers_as_recorded(name, tmp_path, capsys):
    folder = tmp_path / "export"
    export_flow(paths.FLOWS / name, "fastapi", folder)
    assert main(["flow", "parity", str(RECORDINGS / name), "--app", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "flow.py: equal" in printed and "app.py: equal" in printed


def test_a_change_of_the_exported_code_is_a_difference(tmp_path, capsys):
    folder = tmp_path / "export"
    export_flow(paths.FLOWS / "eval", "fastapi", folder)
    code = folder / "aggregate.py"
    code.write_text(code.read_text().replace("def aggregate(", "def aggregate_(", 1))
    with (folder / "aggregate.py").open("a") as file:
        file.write("\n\ndef aggregate(*args, **kw):\n    return {}\n")
    assert main(["flow", "parity", str(RECORDINGS / "eval"), "--app", str(folder)]) == 1
    assert "metrics" in capsys.readouterr().out
