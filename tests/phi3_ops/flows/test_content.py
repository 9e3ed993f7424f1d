"""The content of a flow: the files that count, their copy and their hash."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from flow_folders import write_flow
from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import (
    content_hash,
    copy_flow,
    flow_files,
    is_never_uploaded,
    is_text,
)
from phi3_ops.flows.lock import LOCKED, flow_states

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need a special right there")


def test_files_that_the_wheel_leaves_out_are_not_in_the_hash(tmp_path):
    left_out = shutil.ignore_patterns(".*", "__pycache__", "process_log")
    copy = shutil.copytree(paths.FLOWS, tmp_path / "flows", ignore=left_out)
    assert {state.status for state in flow_states(copy)} == {LOCKED}


def test_folders_that_are_left_out_are_not_entered(tmp_path, monkeypatch):
    """Prompt flow removes the folder of its logs at any time."""
    flow = write_flow(tmp_path / "f", code="x = 1\n")
    before = content_hash(flow)
    (flow / "process_log").mkdir()
    scan = os.scandir

    def gone(path):
        if Path(path).name == "process_log":
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert content_hash(flow) == before
    assert content_hash(copy_flow(flow, tmp_path / "copy")) == before


def test_the_hash_is_that_of_earlier_releases(tmp_path):
    """Another way of hashing would make every published version look changed."""
    flow = write_flow(tmp_path / "f", code="x = 1\n")
    (flow / "sub").mkdir()
    (flow / "sub" / "é.bin").write_bytes(b"\0\r\n")
    assert content_hash(flow) == (
        "1cb27991fbb1b3101676701a8e138559162fc64b6b030943db7a3895d8212752"
    )


LEFT_OUT = [
    ".promptflow/a.json",
    "__pycache__/a.pyc",
    "a.pyc",
    ".env",
    "prod.env",
    ".gitignore",
    "key.pem",
    "sub/.venv/lib/a.py",
    "flow.dag.yaml~",
    ".DS_Store",
    ".env.local",
    "prod.env.local",
    "PROD.ENV",
    "server.pem",
    "Server.PEM",
    "server.key",
    "client.p12",
    "client.pfx",
    "id_rsa",
    "keys/id_ed25519",
    ".npmrc",
    ".aws/credentials",
]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_caches_and_secrets_are_neither_hashed_nor_uploaded(tmp_path, name):
    flow = write_flow(tmp_path / "f")
    before = content_hash(flow)
    (flow / name).parent.mkdir(parents=True, exist_ok=True)
    (flow / name).write_text("anything")
    assert content_hash(flow) == before
    assert flow_files(flow) == [flow / "flow.dag.yaml"]


@pytest.mark.parametrize(
    "name", ["flow.dag.yaml", "samples.jsonl", "tool.py", "environment", "key.py", "env.py"]
)
def test_other_names_are_part_of_the_flow(name):
    assert not is_never_uploaded(name)


def test_every_other_change_changes_it(tmp_path):
    def with_files(**files):
        shutil.rmtree(tmp_path / "f", ignore_errors=True)
        return content_hash(write_flow(tmp_path / "f", **files))

    hashes = [
        with_files(),
        with_files(a=""),
        with_files(b=""),
        with_files(a="b"),
        with_files(a="", b=""),
        with_files(a="4:b.py0:"),  # as the frame of a second file would look
        with_files(version="1.0.1"),
    ]
    assert len(set(hashes)) == len(hashes)


def test_line_ends_of_text_do_not_count_and_those_of_other_files_do(tmp_path):
    flow = write_flow(tmp_path / "f")

    def with_bytes(content):
        (flow / "a").write_bytes(content)
        return content_hash(flow)

    assert with_bytes(b"a\r\nb\r\n") == with_bytes(b"a\nb\n")
    assert with_bytes(b"a\rb") != with_bytes(b"a\nb")
    assert with_bytes(b"\0\r\n") != with_bytes(b"\0\n")


@pytest.mark.parametrize(
    ("content", "text"), [(b"", True), ("é\r\n".encode(), True), (b"a\0b", False)]
)
def test_a_nul_byte_means_that_it_is_not_text(content, text):
    assert is_text(content) is text


@pytest.fixture
def linked(tmp_path):
    """A flow with a link to a file outside its folder."""
    flow = write_flow(tmp_path / "f")
    (tmp_path / "secret.txt").write_text("s")
    (flow / "notes.txt").symlink_to(tmp_path / "secret.txt")
    return flow


@needs_links
@pytest.mark.parametrize(
    "use", [content_hash, flow_files, lambda flow: copy_flow(flow, flow / "x")]
)
def test_a_link_is_refused(linked, use):
    with pytest.raises(OpsError, match=r"notes\.txt is a symbolic link"):
        use(linked)


@needs_links
def test_links_to_files_of_the_flow_are_followed_on_request(tmp_path):
    flow = write_flow(tmp_path / "f")
    (flow / "sub").mkdir()
    (flow / "sub" / "notes.txt").write_text("s")
    (flow / "notes.txt").symlink_to(Path("sub", "notes.txt"))
    copy = copy_flow(flow, tmp_path / "copy", follow_links=True)
    assert not (copy / "notes.txt").is_symlink()
    assert (copy / "notes.txt").read_text() == "s"


@needs_links
@pytest.mark.parametrize("target", ["../secret.txt", "/etc/passwd", ".env", "sub", ".", "missing"])
def test_other_links_are_never_followed(linked, tmp_path, target):
    (linked / ".env").write_text("KEY=s")
    (linked / "sub").mkdir()
    (linked / "notes.txt").unlink()
    (linked / "notes.txt").symlink_to(target)
    with pytest.raises(
        OpsError, match=r"notes\.txt is a symbolic link that does not lead to a file of"
    ):
        copy_flow(linked, tmp_path / "copy", follow_links=True)
    assert not (tmp_path / "copy").exists()


def test_a_copy_has_the_same_content_and_nothing_else(tmp_path):
    flow = write_flow(tmp_path / "f", code="x = 1\n")
    for name in ("sub/prompt.jinja2", ".env", "__pycache__/code.pyc"):
        (flow / name).parent.mkdir(exist_ok=True)
        (flow / name).write_text(name)
    copy = copy_flow(flow, tmp_path / "parent" / "copy")
    assert content_hash(copy) == content_hash(flow)
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert names == {"flow.dag.yaml", "code.py", "sub/prompt.jinja2"}
