"""Imports of promptflow in users' files are taken from this package, where promptflow is missing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from phi3_tools.flow.imports import (
    PromptflowImports,
    compile_without_promptflow,
    promptflow_is_installed,
)


def replaced(source):
    return ast.unparse(PromptflowImports().visit(ast.parse(source)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from promptflow.core import tool", "from phi3_tools.flow import tool"),
        ("from promptflow import tool, log_metric", "from phi3_tools.flow import tool, log_metric"),
        ("from promptflow.tracing import trace as t", "from phi3_tools.flow import trace as t"),
        (
            "from promptflow.connections import CustomConnection",
            "from phi3_tools.flow import CustomConnection",
        ),
        (
            "def f():\n    from promptflow.core import log_metric",
            "def f():\n    from phi3_tools.flow import log_metric",
        ),
        ("from promptflow.core import Prompty, tool", "from promptflow.core import Prompty, tool"),
        ("import promptflow", "import promptflow"),
        ("from .promptflow import tool", "from .promptflow import tool"),
        ("from other import tool", "from other import tool"),
    ],
)
def test_an_import_is_replaced_if_this_package_has_all_its_names(before, after):
    assert replaced(before) == after


def test_every_replaced_name_exists():
    import phi3_tools.flow
    from phi3_tools.flow.imports import REPLACED_NAMES

    assert all(hasattr(phi3_tools.flow, name) for name in REPLACED_NAMES)


def test_the_code_keeps_its_lines_and_its_file():
    source = b"# coding: latin-1\nfrom promptflow.core import tool\nNAME = '\xfc'\n1 / 0\n"
    module: dict = {}
    with pytest.raises(ZeroDivisionError) as raised:
        exec(compile_without_promptflow(source, Path("/flow/ask.py")), module)
    assert module["NAME"] == "ü"
    assert (str(raised.traceback[-1].path), raised.traceback[-1].lineno) == ("/flow/ask.py", 3)


def test_promptflow_is_found():
    assert promptflow_is_installed()
