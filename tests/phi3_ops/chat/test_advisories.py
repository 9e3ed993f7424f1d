"""Starlette's public advisories: why the version is held back, and that no affected part is used.

docs/containers.md explains each of them. If promptflow-core allows a current Starlette, the first test
fails: raise the version then, and delete this file and that section.
"""

from __future__ import annotations

import ast
import re
from importlib.metadata import requires, version
from pathlib import Path

import promptflow.core
import pytest
from packaging.requirements import Requirement

from phi3_ops import paths
from phi3_ops.chat.app import make_chat_app
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_tools.serving import ROUTES

ROOT = Path(__file__).resolve().parents[3]
ADVISORIES = {
    "CVE-2026-48710": "1.0.1",
    "CVE-2026-48818": "1.1.0",
    "CVE-2026-54282": "1.3.0",
    "CVE-2026-54283": "1.3.1",
}
SERVED = [
    *(ROOT / "scripts" / "phi3_ops" / "chat").glob("*.py"),
    *(ROOT / "scripts" / "azure" / "flow").glob("*.py"),
    ROOT / "tools" / "phi3_tools" / "serving.py",
]


def test_promptflow_still_holds_starlette_back():
    needs = [Requirement(need) for need in requires("promptflow-core") or ()]
    (starlette,) = [need.specifier for need in needs if need.name == "starlette"]
    assert not [fixed for fixed in ADVISORIES.values() if fixed in starlette]
    assert version("starlette") in starlette


@pytest.mark.parametrize("advisory", ADVISORIES)
def test_the_documentation_names_it_and_the_version_that_fixes_it(advisory):
    text = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {advisory} .*$", text, re.MULTILINE)
    assert f"| {ADVISORIES[advisory]} |" in row


@pytest.mark.finding(
    14,
    "Starlette is held at a version with public advisories",
    "no affected part is used; docs/containers.md says why",
)
@pytest.mark.parametrize("file", SERVED, ids=lambda file: file.name)
def test_no_affected_part_is_used(file):
    """StaticFiles and FileResponse, `request.url` and `request.base_url`, and `request.form()`."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {
        alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert not names & {"StaticFiles", "FileResponse", "HTTPSRedirectMiddleware"}
    attributes = [
        (node.value.id, node.attr)
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    affected = {"url", "base_url", "form", "url_for"}
    assert not [pair for pair in attributes if pair[0] == "request" and pair[1] in affected]


def test_promptflows_handlers_read_no_forms():
    """CVE-2026-54283 is about `request.form()`."""
    (package,) = promptflow.core.__path__
    for file in (Path(package) / "_serving" / "v2").rglob("*.py"):
        assert ".form(" not in file.read_text(encoding="utf-8"), file


def test_promptflows_pages_and_static_files_are_not_served(tmp_path):
    """Every request to promptflow's app goes through a table of routes."""
    save_connection("advisories", {"endpoint": "http://127.0.0.1:9/score"}, "a-key")
    try:
        flow = FlowDefinition.read(paths.FLOWS / "chat")
        app = make_chat_app(flow, ["advisories"], tmp_path, token=None)
    finally:
        delete_connection("advisories")
    mounts = [route for route in app._app.routes if type(route).__name__ == "Mount"]
    assert [type(mount.app._app).__name__ for mount in mounts] == ["CheckedRequests"]
    assert not [path for path in ROUTES if "static" in path]
