"""The flows of a workspace: found by id and by tags, created and downloaded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from phi3_ops.azure.cloud import CREATED_BY_TAG, PRODUCT
from phi3_ops.errors import OpsError
from phi3_ops.flows.lock import lock_flows
from phi3_ops.publish.project import HASH_TAG, download_directory, upload_tags
from phi3_ops.publish.stage import require_locked
from phi3_ops.publish.upload import record_upload


@pytest.fixture
def state(home):
    lock_flows(home)
    return require_locked("chat", home)


def recorded(home, project, flow_id):
    """The state of the flow with this id in the lock."""
    record_upload(home, require_locked("chat", home), project.lock_key, flow_id)
    return require_locked("chat", home)


def test_the_lock_key_names_the_workspace(project):
    assert project().lock_key == "s/rg/ws-one"


def test_the_tags_identify_the_version(state):
    tags = upload_tags(state)
    assert tags[CREATED_BY_TAG] == PRODUCT
    assert (tags["name"], tags["version"], tags["sha256"]) == ("chat", "1.0.0", state.sha256)
    assert tags["tools"] == state.entry.tools


def test_a_version_is_found_by_its_tags(project, uploaded, state):
    flow = uploaded("id-1", upload_tags(state))
    other = uploaded("id-2", upload_tags(state) | {"version": "0.9.0"})
    assert project(other, flow).find(state) is flow
    assert project(other).find(state) is None


def test_a_version_is_found_by_its_id_alone(project, uploaded, state, home):
    """The service lists only the newest flows."""
    flow = uploaded("id-1", {HASH_TAG: state.sha256})
    workspace = project(flow)
    assert workspace.find(recorded(home, workspace, "id-1")) is flow


@pytest.mark.parametrize("archived", [True, False])
def test_an_archived_or_deleted_flow_is_not_found(project, uploaded, state, home, archived):
    flows = [uploaded("id-1", {HASH_TAG: state.sha256}, archived=True)] if archived else []
    workspace = project(*flows)
    assert workspace.get("id-1") is None
    assert workspace.find(recorded(home, workspace, "id-1")) is None


@pytest.mark.parametrize("by_id", [True, False])
def test_other_content_is_refused(project, uploaded, state, home, by_id):
    workspace = project(uploaded("id-1", upload_tags(state) | {HASH_TAG: "0" * 64}))
    if by_id:
        state = recorded(home, workspace, "id-1")
    with pytest.raises(OpsError, match=r"chat-v1.0.0 is already uploaded with .* \(id-1\)"):
        workspace.find(state)


def test_only_flows_of_this_product_are_listed(project, uploaded, state):
    mine = uploaded("id-1", upload_tags(state))
    without_version = uploaded("id-2", {CREATED_BY_TAG: PRODUCT, "name": "chat"})
    assert project(mine, without_version, uploaded("id-3", {})).all() == [mine]


def test_a_flow_is_created_with_its_name_and_tags(project, state, home, capsys):
    workspace = project()
    assert workspace.create(home / "chat", state) == "id-1"
    ((folder, name, tags),) = workspace.stub.created
    assert (folder, name) == (home / "chat", "chat-v1.0.0")
    assert upload_tags(state).items() <= tags.items()
    assert capsys.readouterr().out == ""


# -- download ----------------------------------------------------------------------------------------


class Share:
    """A directory of a file share: name -> bytes, or another directory."""

    def __init__(self, **content):
        self.content = content

    def list_directories_and_files(self):
        for name, value in self.content.items():
            yield SimpleNamespace(name=name, is_directory=isinstance(value, Share))

    def get_subdirectory_client(self, name):
        return self.content[name]

    def get_file_client(self, name):
        content = self.content[name]
        return SimpleNamespace(
            download_file=lambda: SimpleNamespace(readall=lambda: content),
        )


def test_a_directory_is_downloaded(tmp_path):
    download_directory(Share(a=b"1", sub=Share(b=b"2")), tmp_path / "out")
    assert (tmp_path / "out" / "a").read_bytes() == b"1"
    assert (tmp_path / "out" / "sub" / "b").read_bytes() == b"2"


@pytest.mark.parametrize("content", [b"x", Share(a=b"x")])
@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", "..", "."])
def test_a_name_that_leads_to_another_folder_is_refused(tmp_path, name, content):
    with pytest.raises(OpsError, match="is not the name of a file"):
        download_directory(Share(**{name: content}), tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
