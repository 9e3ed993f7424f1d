"""The cache: where it is, who can open it, and what is listed and removed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.files import atomic_folder
from phi3_ops.files.ownership import finish_writing
from phi3_ops.models import cache as cache_module
from phi3_ops.models.cache import cache_folder, find_model, list_models, locked, remove_model


def make_model(cache, name, licence="mit", conversion=cache_module.CONVERSION):
    folder = cache / name
    folder.mkdir(parents=True)
    cache.chmod(0o700)
    base = {"name": name.title(), "source": "a test", "licence": licence, "conversion": conversion}
    with atomic_folder(folder, cache_module.BASE_FILE) as staging:
        import json

        (staging / cache_module.BASE_FILE).write_text(json.dumps(base))
        (staging / "weights").write_bytes(bytes(1000))
    finish_writing(folder, ["weights", cache_module.BASE_FILE])
    return folder


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PHI3_CACHE": "{tmp}/own"}, "{tmp}/own/models"),
        ({"PHI3_CACHE": "", "XDG_CACHE_HOME": "{tmp}/xdg"}, "{tmp}/xdg/phi3/models"),
        ({"PHI3_CACHE": "", "XDG_CACHE_HOME": "relative"}, "{tmp}/home/.cache/phi3/models"),
        ({"PHI3_CACHE": "", "XDG_CACHE_HOME": ""}, "{tmp}/home/.cache/phi3/models"),
        ({"PHI3_CACHE": "~/own"}, "{tmp}/home/own/models"),
    ],
    ids=["own", "xdg", "relative xdg", "home", "tilde"],
)
def test_the_folder(tmp_path, monkeypatch, variables, expected):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    folder = cache_folder()
    assert folder == Path(expected.format(tmp=tmp_path))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_cache_that_others_can_open_is_refused(cache):
    cache.mkdir(parents=True)
    cache.chmod(0o755)
    with pytest.raises(OpsError, match="not a folder that only you can open. Set PHI3_CACHE"):
        list_models()


def test_models_are_listed_with_their_sizes_and_exports(cache):
    make_model(cache, "b", licence=None)
    export = make_model(cache, "a") / "openvino-fp32-0123456789abcdef"
    export.mkdir()
    (export / "serving.json").write_bytes(bytes(10_000))
    (cache / "foreign").mkdir()
    first, second = list_models()
    assert (first.name, first.title, first.licence, first.is_current) == ("a", "A", "mit", True)
    assert (second.name, second.licence) == ("b", None)
    assert first.size - second.size == pytest.approx(10_000, abs=10)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 1}'])
def test_a_folder_without_a_valid_record_is_not_a_model(cache, content):
    folder = make_model(cache, "a")
    (folder / cache_module.BASE_FILE).write_text(content)
    assert find_model(folder) is None


def test_a_model_is_removed_with_its_exports_and_nothing_else(cache):
    folder = make_model(cache, "a")
    (folder / "openvino-fp32-0123456789abcdef").mkdir()
    (folder / "openvino-fp32-0123456789abcdef" / "serving.json").touch()
    (folder / "notes.txt").write_text("mine")
    other = make_model(cache, "b")
    assert remove_model("a") == [folder / "notes.txt"]
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert (other / "weights").exists()
    assert remove_model("b") == [] and not other.exists()


@pytest.mark.parametrize("name", ["none", "../cache/a", "", ".", "foreign"])
def test_what_is_not_a_cached_model_is_not_removed(cache, name):
    make_model(cache, "a")
    (cache / "foreign").mkdir()
    (cache / "foreign" / "file").touch()
    with pytest.raises(OpsError, match="the cache contains no model .* It contains a."):
        remove_model(name)
    assert (cache / "foreign" / "file").exists()


def test_the_error_of_an_empty_cache_says_so():
    with pytest.raises(OpsError, match="It is empty"):
        remove_model("a")


def test_a_model_that_is_being_prepared_is_waited_for(cache, monkeypatch, capsys):
    monkeypatch.setattr(cache_module, "CONVERSION_S", 0.05)
    with (
        locked("a"),
        pytest.raises(OpsError, match="another process still prepares a. Try again"),
        locked("a"),
    ):
        pass
    assert capsys.readouterr().err == "waiting for another process that prepares a\n"


def test_an_error_inside_the_lock_is_not_changed():
    with pytest.raises(TimeoutError, match="mine"), locked("a"):
        raise TimeoutError("mine")


def test_a_lock_that_cannot_be_written(cache):
    cache.mkdir(mode=0o700, parents=True)
    (cache / ".a.lock").symlink_to(os.devnull)
    with pytest.raises(OpsError, match="cannot lock"), locked("a"):
        pass
