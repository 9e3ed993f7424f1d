"""The wheel of the tool package: its name, its content, and its record."""

from __future__ import annotations

import importlib.metadata
import io
import re
import subprocess
import sys
import zipfile

import pytest

import phi3_tools
from phi3_ops.flows.wheel import build_tool_wheel
from phi3_ops.hashing import sha256_urlsafe
from phi3_ops.installation import PACKAGE
from phi3_tools import __version__

INFO = f"phi3_promptflow-{__version__}.dist-info"


@pytest.fixture(scope="module")
def members():
    """Every member of the wheel: name -> bytes."""
    with zipfile.ZipFile(io.BytesIO(build_tool_wheel().content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_same_files_give_the_same_bytes():
    assert build_tool_wheel() == build_tool_wheel()


def test_the_name_has_the_version_and_no_platform():
    assert build_tool_wheel().name == f"phi3_promptflow-{__version__}-py3-none-any.whl"


def test_it_is_written_under_its_name(tmp_path):
    wheel = build_tool_wheel()
    assert wheel.write(tmp_path) == tmp_path / wheel.name
    assert (tmp_path / wheel.name).read_bytes() == wheel.content


def test_it_contains_the_tools_and_no_caches(members):
    assert {"phi3_tools/pf_tools.py", "phi3_tools/yamls/phi3_chat.yaml"} <= set(members)
    assert not [name for name in members if "__pycache__" in name]
    assert not [name for name in members if not name.startswith(("phi3_tools/", f"{INFO}/"))]


def test_files_with_secrets_in_the_package_are_left_out(tmp_path, monkeypatch):
    (tmp_path / "yamls").mkdir()
    for name in ("__init__.py", "prod.env", ".npmrc", "server.pem", "yamls/.env"):
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(phi3_tools, "__file__", str(tmp_path / "__init__.py"))
    with zipfile.ZipFile(io.BytesIO(build_tool_wheel().content)) as archive:
        names = [name for name in archive.namelist() if name.startswith("phi3_tools/")]
    assert names == ["phi3_tools/__init__.py"]


def test_the_metadata_name_the_package_and_the_requirements_of_flows(members):
    lines = members[f"{INFO}/METADATA"].decode().splitlines()
    assert lines[:3] == ["Metadata-Version: 2.1", f"Name: {PACKAGE}", f"Version: {__version__}"]
    needs = [line for line in lines if line.startswith("Requires-Dist: ")]
    assert any("requests" in need for need in needs)
    assert not [need for need in needs if "promptflow" in need and "extra" not in need]
    extras = {re.split("[<>]", need.split()[1])[0] for need in needs if "extra" in need}
    assert extras == {"jinja2", "pyyaml", "promptflow-core"}
    entry_points = members[f"{INFO}/entry_points.txt"].decode()
    assert "= phi3_tools.pf_tools:list_package_tools" in entry_points


def test_the_record_has_the_hash_and_the_size_of_every_other_member(members):
    *rows, last = members[f"{INFO}/RECORD"].decode().splitlines()
    assert last == f"{INFO}/RECORD,,"
    recorded = dict(row.split(",", 1) for row in rows)
    assert recorded == {
        name: f"sha256={sha256_urlsafe(data)},{len(data)}"
        for name, data in members.items()
        if name != f"{INFO}/RECORD"
    }


def test_the_installed_wheel_has_the_tools(tmp_path):
    file = build_tool_wheel().write(tmp_path)
    words = ("install", "--no-deps", "--no-index", "--target", tmp_path / "site", file)
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    (installed,) = importlib.metadata.distributions(path=[str(tmp_path / "site")])
    (tool,) = installed.entry_points.select(group="package_tools")
    assert tool.value == "phi3_tools.pf_tools:list_package_tools"
    assert set(installed.metadata.get_all("Provides-Extra")) == {"flow", "promptflow"}
    assert list((tmp_path / "site" / "phi3_tools" / "yamls").glob("*.yaml"))
