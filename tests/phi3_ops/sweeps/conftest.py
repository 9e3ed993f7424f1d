import pytest

from sweep_files import server, write_sweep  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def working_folder(monkeypatch, tmp_path):
    """The lock of a sweep is in `.phi3` of the working folder."""
    monkeypatch.chdir(tmp_path)
