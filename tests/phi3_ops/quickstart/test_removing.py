"""`phi3 quickstart --remove` removes what a quickstart made, and nothing else."""

from __future__ import annotations

import json

import pytest

from phi3_ops.cli import main
from phi3_ops.endpoint.registration import find_endpoint
from phi3_ops.files.ownership import record_connection, record_files
from phi3_ops.models.cache import CachedModel
from phi3_ops.pf.connections import (
    connection_url,
    delete_connection,
    save_connection,
)
from phi3_ops.quickstart import removal
from quickstart_folder import quickstart_folder
from registered_endpoint import registered_endpoint

URL, OTHER_URL = "http://127.0.0.1:9/score", "http://127.0.0.1:10/score"


def content(folder):
    """Every file of a folder, and its text."""
    return {path: path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def connections():
    """Two connections of which a quickstart could have written either."""
    names = ("phi3", "phi3-base")
    for name in names:
        save_connection(name, {"endpoint": URL}, "key")
    yield
    for name in names:
        delete_connection(name)


def remove(workdir):
    return main(["quickstart", "--remove", "--workdir", str(workdir)])


@pytest.mark.finding(
    1,
    "`phi3 quickstart --remove --workdir .` in a project",
    "the current folder, its parents, the home folder, links and anything with `.git` are refused",
)
@pytest.mark.parametrize("workdir", [".", "..", "{project}", "link"])
def test_a_project_is_not_removed(tmp_path, monkeypatch, connections, capsys, workdir):
    """The review's attack: `phi3 data --out data` in a project, then `--remove --workdir .`."""
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (project / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (project / "main.py").write_text("print()")
    (tmp_path / "link").symlink_to(project)
    monkeypatch.chdir(project)
    assert main(["data", "--out", "data"]) == 0
    quickstart_folder(project)  # even if the markers list files
    before = content(tmp_path)
    monkeypatch.chdir(tmp_path if workdir == "link" else project)
    assert remove(workdir.format(project=project)) == 1
    assert "refusing to use" in capsys.readouterr().err
    assert content(tmp_path) == before and connection_url("phi3") == URL


@pytest.mark.finding(
    1,
    "`--remove` with a folder that only looks like a workdir",
    "a folder without the marker of this product is refused",
)
@pytest.mark.parametrize("text", ["{}", '{"sha256": {}}'])
def test_a_folder_with_a_manifest_is_not_removed(tmp_path, connections, capsys, text):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text(text)
    before = content(tmp_path)
    assert remove(tmp_path) == 1
    assert "is not the folder of a quickstart. Nothing was removed" in capsys.readouterr().err
    assert content(tmp_path) == before and connection_url("phi3") == URL


def test_the_output_of_another_command_is_not_removed(tmp_path, capsys):
    assert main(["data", "--out", str(tmp_path / "data")]) == 0
    before = content(tmp_path)
    assert remove(tmp_path / "data") == 1
    assert "is not the folder of a quickstart" in capsys.readouterr().err
    assert content(tmp_path) == before


@pytest.mark.finding(
    1,
    "`--remove` with a workdir that does not exist",
    "no connection is deleted",
)
def test_without_a_workdir_no_connection_is_deleted(tmp_path, connections, capsys):
    assert remove(tmp_path / "none") == 0
    missing = f"{tmp_path / 'none'} does not exist, so it contains nothing to remove\n"
    assert capsys.readouterr().out == missing
    assert connection_url("phi3") == connection_url("phi3-base") == URL


@pytest.mark.finding(
    1,
    "a workdir also holds files of the user",
    "only listed files are removed; the others are kept and named",
)
def test_only_files_of_the_quickstart_are_removed(tmp_path, capsys):
    workdir = quickstart_folder(tmp_path / "work")
    notes = [workdir / name for name in ("notes.txt", "data/mine.jsonl", "model/model/notes.txt")]
    for file in notes:
        file.write_text("mine")
    export = workdir / "model" / "model" / "openvino-fp32-0123456789abcdef"
    export.mkdir()
    (export / "serving.json").write_text("")
    assert remove(workdir) == 0
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(notes)
    printed = capsys.readouterr().out
    assert all(f"kept {file}: the quickstart did not write it" in printed for file in notes)
    assert remove(workdir) == 1


def test_a_shared_base_model_is_kept_and_named(tmp_path, monkeypatch, capsys):
    model = tmp_path / "cache" / "models" / "smollm2"
    model.mkdir(parents=True)
    cached = CachedModel("smollm2", model, "title", "source", "licence", 0, True)
    monkeypatch.setattr(removal, "list_models", lambda: [cached])
    workdir = quickstart_folder(tmp_path / "work")
    (workdir / "summary.json").write_text(json.dumps({"base": str(model)}))
    assert remove(workdir) == 0
    assert "`phi3 models --remove smollm2` deletes it" in capsys.readouterr().out
    assert model.is_dir()


def test_a_folder_behind_a_link_is_not_emptied(tmp_path):
    workdir, other = tmp_path / "work", quickstart_folder(tmp_path / "other")
    record_files(workdir, ["summary.json"])
    (workdir / "data").symlink_to(other / "data")
    (workdir / "model").symlink_to(other / "model")
    before = content(other)
    assert remove(workdir) == 0
    assert content(other) == before


def test_a_connection_goes_only_if_it_leads_to_the_workdir(
    tmp_path, connections, capsys, monkeypatch
):
    monkeypatch.setattr(removal, "SERVICE_URL", "http://127.0.0.1:1/heartbeat")
    workdir = quickstart_folder(tmp_path / "work")
    record_connection(workdir, "phi3", OTHER_URL)  # another endpoint has taken the connection
    record_connection(workdir, "phi3-base", URL)
    record_connection(workdir, "none", URL)
    assert remove(workdir) == 0
    assert connection_url("phi3") == URL and connection_url("phi3-base") is None
    assert capsys.readouterr().out.splitlines() == [
        "kept the connection 'phi3': it leads to another endpoint now, 127.0.0.1:9/score",
        "deleted the connection 'phi3-base'",
        "the connection 'none' does not exist any more",
        f"deleted {workdir}",
    ]


def test_endpoints_of_other_workdirs_stay(tmp_path, capsys):
    workdir = quickstart_folder(tmp_path / "work")
    with registered_endpoint(tmp_path / "other") as other, registered_endpoint(workdir):
        (workdir / "endpoints" / "forged.json").write_text(
            (tmp_path / "other" / "endpoints" / "tuned.json").read_text()
        )
        assert remove(workdir) == 0
        assert find_endpoint(tmp_path / "other", "tuned").pid == other.pid
    assert "stopped the endpoint 'tuned'\n" in capsys.readouterr().out
    assert [path.name for path in workdir.rglob("*") if path.is_file()] == ["forged.json"]
