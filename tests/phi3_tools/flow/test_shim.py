"""Flows import promptflow's names where it is installed; the engine and tool packages never need it."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import phi3_tools.flow
from phi3_ops import paths
from phi3_tools.flow import decorators, shim


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_flow_gets_the_names_of_promptflow_where_it_is_installed():
    import promptflow.core
    from promptflow.tracing import trace

    assert phi3_tools.flow.tool is promptflow.core.tool
    assert phi3_tools.flow.log_metric is promptflow.core.log_metric
    assert phi3_tools.flow.ToolProvider is promptflow.core.ToolProvider
    assert phi3_tools.flow.trace is trace


def test_the_engine_gives_flows_our_names():
    with shim.loading_by_engine():
        assert phi3_tools.flow.tool is decorators.tool
    with decorators.collect_metrics():
        assert phi3_tools.flow.log_metric is decorators.log_metric


def test_without_promptflow_the_names_are_ours(monkeypatch):
    monkeypatch.setitem(sys.modules, "promptflow.core", None)
    monkeypatch.setitem(sys.modules, "promptflow.tracing", None)
    assert phi3_tools.flow.tool is decorators.tool and phi3_tools.flow.trace is decorators.trace


def test_other_names_do_not_exist():
    with pytest.raises(AttributeError):
        phi3_tools.flow.no_such_name  # noqa: B018


def test_running_our_flows_does_not_import_promptflow():
    code = f"""
import sys
from phi3_tools.flow import Engine, load_flow
from phi3_tools import pf_tools
engine = Engine(load_flow({str(paths.FLOWS / "eval")!r}))
line = engine.run({{"answer": "a", "ground_truth": "a"}})
print(engine.aggregate([line]).metrics["exact_match"])
connection = {{"endpoint": "http://127.0.0.1:1", "key": "k"}}
Engine(load_flow({str(paths.FLOWS / "chat")!r}), {{"phi3": connection}})
print([name for name in sys.modules if name.startswith("promptflow")])
"""
    assert run(code) == ["1.0", "[]"]


def test_an_exception_of_a_tool_is_one_of_promptflow_if_that_is_loaded():
    from promptflow.exceptions import UserErrorException

    error = shim.tool_exception("Phi3UserError", "no key", "ConfigError", True)
    assert isinstance(error, UserErrorException)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.error_codes) == (
        "no key",
        ["UserError", "Phi3UserError", "ConfigError"],
    )
    code = """
import sys
from phi3_tools.flow import NodeError, tool_exception
error = tool_exception("Phi3SystemError", "down", "ServerError", False)
print(isinstance(error, NodeError), error, error.error_codes[0], "promptflow" in sys.modules)
"""
    assert run(code) == ["True", "down", "SystemError", "False"]


def test_promptflow_takes_our_prompt_template_for_its_own():
    from promptflow.contracts.types import PromptTemplate, Secret

    assert shim.PromptTemplate == PromptTemplate and shim.PromptTemplate != Secret
    assert len({shim.PromptTemplate, str}) == 2
