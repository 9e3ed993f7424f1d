"""The folder of an export: who may have written it, and how it is locked."""

import os
import stat

import export_cache
import openvino_export
import pytest
from export_cache import ExportError
from model_files import ModelFiles

LINUX = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs user ids")
pytestmark = LINUX


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's temporary folder, which every user can write to."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(export_cache.tempfile, "gettempdir", lambda: str(folder))
    monkeypatch.delenv("PHI3_EXPORT_CACHE", raising=False)
    return folder


@pytest.fixture
def read_only_model(tiny_model_dir, monkeypatch):
    """The tiny model, as if its folder were mounted read-only and contained no export."""
    monkeypatch.setattr(export_cache, "is_writable", lambda folder: folder != tiny_model_dir)
    monkeypatch.setattr(openvino_export, "_digest", lambda files: "0123456789abcdef")
    return ModelFiles(tiny_model_dir, tiny_model_dir)


def become_another_user(monkeypatch):
    """Make all files of this process look like those of another user."""
    uid = os.geteuid() + 1
    monkeypatch.setattr(export_cache.os, "geteuid", lambda: uid)


def plant(folder):
    folder.mkdir(parents=True)
    (folder / "serving.json").write_text("{}")
    return folder


def record_exports(monkeypatch):
    """Replace the export by one that only writes the last file. Return the list of its targets."""
    targets = []

    def export(files, precision, target):
        targets.append(plant(target))

    monkeypatch.setattr(openvino_export, "_export", export)
    return targets


@pytest.mark.finding(
    10,
    "another local user plants an exported model in the temporary folder",
    "the export is never used; the folder is the user's own, 0700, with its owner checked",
)
def test_an_export_in_the_folder_that_all_users_share_is_never_served(
    temporary, read_only_model, monkeypatch
):
    """Another user can put an export there before the victim starts."""
    plant(temporary / "phi3-exports" / "openvino-fp32-0123456789abcdef")
    targets = record_exports(monkeypatch)
    folder = openvino_export.ensure_export(read_only_model, "fp32")
    assert targets == [folder]
    assert folder.parent == temporary / f"phi3-exports-{os.geteuid()}"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_the_temporary_folder_is_not_looked_at_if_the_models_folder_is_writable(
    temporary, tiny_model_dir, monkeypatch
):
    monkeypatch.setattr(openvino_export, "_digest", lambda files: "0123456789abcdef")
    monkeypatch.setattr(export_cache, "is_writable", lambda folder: True)
    planted = plant(export_cache.user_folder() / "openvino-int4-0123456789abcdef")
    assert planted.parent.parent == temporary
    targets = []

    def export(files, precision, target):
        targets.append(target)

    monkeypatch.setattr(openvino_export, "_export", export)
    openvino_export.ensure_export(ModelFiles(tiny_model_dir, tiny_model_dir), "int4")
    assert [target.parent for target in targets] == [tiny_model_dir]


def test_the_users_folder_is_used_again(temporary, read_only_model, monkeypatch):
    targets = record_exports(monkeypatch)
    first = openvino_export.ensure_export(read_only_model, "fp32")
    assert openvino_export.ensure_export(read_only_model, "fp32") == first
    assert len(targets) == 1


def open_to_others(path):
    path.mkdir()
    path.chmod(0o777)


def link(path):
    target = path.with_name("elsewhere")
    target.mkdir(mode=0o700)
    path.symlink_to(target)


@pytest.mark.parametrize("make", [open_to_others, link, lambda path: path.touch()])
def test_a_folder_that_other_users_can_open_is_refused(temporary, make):
    make(temporary / f"phi3-exports-{os.geteuid()}")
    with pytest.raises(ExportError, match="delete it, or set PHI3_EXPORT_CACHE") as caught:
        export_cache.user_folder()
    assert "\n" not in str(caught.value)


def test_the_folder_of_another_user_is_refused(temporary, monkeypatch):
    (temporary / f"phi3-exports-{os.geteuid() + 1}").mkdir(mode=0o700)
    become_another_user(monkeypatch)
    with pytest.raises(ExportError, match="is not a folder of this user alone"):
        export_cache.user_folder()


@pytest.mark.parametrize("known", ["export", "parent"])
def test_an_export_of_another_user_is_refused_unless_the_folder_is_theirs(
    tmp_path, monkeypatch, known
):
    export = plant(tmp_path / "cache" / "openvino-fp32-0")
    owners = {export: 7001, export.parent: 7001 if known == "parent" else 7002}
    original = type(export).stat

    def fake_stat(path, **options):
        values = list(original(path, **options))
        if path in owners:
            values[stat.ST_UID] = owners[path]
        return os.stat_result(values)

    monkeypatch.setattr(type(export), "stat", fake_stat)
    if known == "parent":
        assert export_cache.has_export(export)
    else:
        with pytest.raises(ExportError, match=r"belongs to another user \(uid 7001\)"):
            export_cache.has_export(export)


def test_an_unfinished_export_is_not_used(tmp_path):
    assert not export_cache.has_export(tmp_path / "missing")
    (tmp_path / "started").mkdir()
    assert not export_cache.has_export(tmp_path / "started")


@pytest.mark.finding(
    10,
    "a link at the name of the export's lock points to a file of the victim",
    "the lock is opened without following links and is never truncated",
)
def test_a_link_at_the_name_of_the_lock_does_not_empty_a_file(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock = tmp_path / ".openvino.lock"
    lock.symlink_to(victim)
    with pytest.raises(ExportError, match="cannot be locked"), export_cache.exclusive_lock(lock):
        pass
    assert victim.read_text() == "precious"
    assert lock.is_symlink()


def test_a_hard_link_at_the_name_of_the_lock_does_not_empty_a_file(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock = tmp_path / ".openvino.lock"
    lock.hardlink_to(victim)
    with export_cache.exclusive_lock(lock):
        assert victim.read_text() == "precious"
    assert victim.read_text() == "precious"


def test_a_lock_is_removed_and_readable_for_its_user_only(tmp_path):
    lock = tmp_path / ".openvino.lock"
    with export_cache.exclusive_lock(lock):
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    assert not lock.exists()


def test_no_writable_folder_is_an_error_that_names_the_setting(
    temporary, read_only_model, monkeypatch
):
    monkeypatch.setattr(export_cache.tempfile, "gettempdir", lambda: str(temporary / "missing"))
    with pytest.raises(ExportError, match="set PHI3_EXPORT_CACHE"):
        openvino_export.ensure_export(read_only_model, "int4")
    monkeypatch.setattr(export_cache, "is_writable", lambda folder: False)
    monkeypatch.setenv("PHI3_EXPORT_CACHE", str(temporary))
    with pytest.raises(ExportError, match="set PHI3_EXPORT_CACHE"):
        openvino_export.ensure_export(read_only_model, "int4")


def test_a_folder_below_a_file_is_not_writable(tmp_path):
    (tmp_path / "file").touch()
    assert not export_cache.is_writable(tmp_path / "file" / "folder")
    assert export_cache.is_writable(tmp_path / "new" / "folder")
