"""The download of an uploaded flow, and its differences from the local one."""

from __future__ import annotations

import pytest

from phi3_ops.azure.cloud import CREATED_BY_TAG, PRODUCT
from phi3_ops.errors import OpsError
from phi3_ops.publish.pull import diff_flow, pull_flow


def tags(version, name="chat"):
    return {CREATED_BY_TAG: PRODUCT, "name": name, "version": version}


@pytest.fixture
def workspace(project, uploaded):
    """A project with two versions of chat, the newest first; a download writes the flow's id."""
    made = project(uploaded("id-2", tags("1.1.0")), uploaded("id-1", tags("1.0.0")))

    def download(flow, folder):
        folder.mkdir()
        (folder / "id").write_text(flow.name)

    made.download = download
    return made


@pytest.mark.parametrize(("version", "flow_id"), [(None, "id-2"), ("1.0.0", "id-1")])
def test_the_newest_or_the_given_version_is_downloaded(workspace, tmp_path, version, flow_id):
    flow = pull_flow(workspace, "chat", tmp_path / "out", version)
    assert flow.name == (tmp_path / "out" / "id").read_text() == flow_id


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("chat", "9.9.9", "chat 9.9.9 is not uploaded. Uploaded versions of chat: 1.1.0, 1.0.0."),
        ("qa", None, "qa is not uploaded. Uploaded versions of qa: none."),
    ],
)
def test_a_version_that_is_not_uploaded(workspace, tmp_path, name, version, message):
    with pytest.raises(OpsError) as caught:
        pull_flow(workspace, name, tmp_path / "deep" / "out", version)
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


def test_a_flow_that_is_deleted_in_the_meantime(workspace, tmp_path):
    workspace.get = lambda flow_id: None
    with pytest.raises(OpsError, match="the flow id-2 was deleted in the meantime"):
        pull_flow(workspace, "chat", tmp_path / "out")


def test_a_folder_with_files_is_not_replaced(workspace, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(OpsError, match="is not empty"):
        pull_flow(workspace, "chat", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failed_download_leaves_nothing(workspace, tmp_path):
    def fail(flow, folder):
        folder.mkdir()
        (folder / "half").write_text("")
        raise OpsError("broken")

    workspace.download = fail
    with pytest.raises(OpsError, match="broken"):
        pull_flow(workspace, "chat", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# -- differences -------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Writes the local and the uploaded files: name -> bytes."""

    def write(local, uploaded):
        for name, files in (("local", local), ("uploaded", uploaded)):
            (tmp_path / name).mkdir()
            for file, content in files.items():
                (tmp_path / name / file).write_bytes(content)
        return tmp_path / "local", tmp_path / "uploaded"

    return write


def test_equal_folders_have_no_differences(folders):
    assert diff_flow(*folders({"a": b"x"}, {"a": b"x"})) == []


def test_a_changed_line(folders):
    lines = diff_flow(*folders({"a": b"one\ntwo\n"}, {"a": b"one\n2\n"}))
    assert lines == ["--- here/a", "+++ uploaded/a", "@@ -1,2 +1,2 @@", " one", "-two", "+2"]


def test_files_on_one_side_only(folders):
    lines = diff_flow(*folders({"a": b"1\n"}, {"b": b"2\n"}))
    assert [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "-1",
        "+2",
    ]


def test_other_files_than_text_are_only_named(folders):
    assert diff_flow(*folders({"a": b"\0\1"}, {"a": b"\0\2"})) == ["a differs"]
