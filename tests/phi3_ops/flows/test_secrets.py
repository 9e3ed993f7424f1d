"""The search for keys in files that leave this machine."""

from __future__ import annotations

import zipfile

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.flows.secrets import KEY_VARIABLES, refuse_secrets
from phi3_ops.pf.connections import delete_connection, save_connection

KEY = "a-key-of-the-store"


@pytest.fixture
def connection():
    save_connection("phi3-secret", {"endpoint": "http://127.0.0.1:9/score"}, KEY)
    yield "phi3-secret"
    delete_connection("phi3-secret")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for variable in KEY_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_a_key_of_the_store_is_found_in_the_middle_of_a_file(connection, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "notes.bin").write_bytes(b"\0\xff" + KEY.encode() + b"\n")
    with pytest.raises(OpsError) as caught:
        refuse_secrets(tmp_path)
    assert caught.value.what == "deep/notes.bin contains the key of phi3-secret"
    assert KEY not in str(caught.value)


def test_a_key_is_found_in_a_member_of_a_zip_file(connection, tmp_path):
    with zipfile.ZipFile(tmp_path / "tools.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("phi3_tools/a.py", f"KEY = {KEY!r}")
    with pytest.raises(OpsError, match="tools.whl: phi3_tools/a.py contains the key of"):
        refuse_secrets(tmp_path)


@pytest.mark.parametrize("variable", KEY_VARIABLES)
def test_a_key_of_the_environment_is_found(monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, "a-key-of-the-environment")
    (tmp_path / "a.txt").write_text("a-key-of-the-environment")
    with pytest.raises(OpsError, match=f"a.txt contains the value of {variable}"):
        refuse_secrets(tmp_path)


def test_a_value_of_few_characters_is_not_a_key(monkeypatch, tmp_path):
    monkeypatch.setenv(KEY_VARIABLES[0], "1234567")
    (tmp_path / "a.txt").write_text("the number 1234567")
    refuse_secrets(tmp_path)


def test_files_without_a_key_pass(connection, tmp_path):
    (tmp_path / "a.txt").write_text("PHI3_KEY")
    refuse_secrets(tmp_path)
