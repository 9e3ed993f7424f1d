"""Flows in the fake Azure: a folder to upload from, and the uploaded files and ids."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from azure_fixtures import GROUP, plant
from phi3_ops import paths
from phi3_ops.flows.content import copy_flow
from phi3_ops.flows.lock import LOCK_FILE, lock_flows

KEY = "a-key-of-the-model's-endpoint"
NEVER_UPLOADED = {
    "__pycache__/x.pyc": "",
    ".env": f"KEY={KEY}",
    ".promptflow/chat.detail.json": "a prompt",
    ".venv/bin/python": "",
}


@pytest.fixture
def service(azure: Any) -> Any:
    """A workspace with an open file share."""
    from fake_azure import flows

    azure.create_group(GROUP)
    flows.open_share(azure, plant(azure, "", {"properties": {}})["id"])
    return azure


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the chat flow, locked, and files that must not be uploaded."""
    flow = tmp_path / "flows" / "chat"
    copy_as_version(paths.FLOWS / "chat", flow)
    for name, text in NEVER_UPLOADED.items():
        (flow / name).parent.mkdir(parents=True, exist_ok=True)
        (flow / name).write_text(text)
    lock_flows(flow.parent)
    return flow.parent


def copy_as_version(source: Path, flow: Path, version: str = "1.0.0") -> None:
    """Copy a shipped flow and give the copy a version that the tests can name."""
    copy_flow(source, flow)
    dag = flow / "flow.dag.yaml"
    text = dag.read_text(encoding="utf-8")
    dag.write_text(re.sub(r"(?m)^  version: \S+", f"  version: {version}", text), encoding="utf-8")


def uploaded(azure: Any) -> list[Any]:
    """Return the uploaded flows."""
    return list(azure.flows.values())


def share(azure: Any) -> dict[str, bytes]:
    """Return the files on the share, by their path in the folder of their flow."""
    files = {path: content for path, content in azure.share.items() if content is not None}
    return {path.split("/", 4)[4]: content for path, content in files.items()}


def upload(phi3: Any, home: Path, *words: Any) -> str:
    """Run `phi3 flow upload chat`, and return its output."""
    done = phi3("flow", "upload", "chat", "--folder", home, *words)
    assert done.code == 0, done.err
    return str(done.out)


def raise_version(home: Path, old: str = "1.0.0", new: str = "1.1.0") -> None:
    """Change the version of the chat flow."""
    dag = home / "chat" / "flow.dag.yaml"
    dag.write_text(dag.read_text().replace(f"version: {old}", f"version: {new}"))


def ids(home: Path) -> dict[str, list[str]]:
    """Return the ids in the lock, by the version of the chat flow."""
    lock = json.loads((home / LOCK_FILE).read_text())["chat"]
    return {number: list(entry.get("uploads", {}).values()) for number, entry in lock.items()}
