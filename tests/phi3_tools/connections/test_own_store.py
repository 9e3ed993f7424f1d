"""The package's own store: names and fields in JSON, secrets in the keyring."""

from __future__ import annotations

import json
import sys

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.pf import own_connections
from phi3_ops.pf.own_connections import delete_own_connection, write_own_connection
from phi3_tools import ConfigError
from phi3_tools.connections.own_store import (
    keyring_username,
    list_own_connections,
    own_store_path,
    read_own_connection,
    user_folder,
)

CONFIGS = {"endpoint": "http://127.0.0.1:9/score"}


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "home"))
    yield
    delete_own_connection("t")


def test_written_read_replaced_and_deleted():
    assert read_own_connection("t") is None
    write_own_connection("t", CONFIGS, {"key": "one", "other": "two"})
    assert dict(read_own_connection("t").secrets) == {"key": "one", "other": "two"}
    write_own_connection("t", {**CONFIGS, "contract": "chat"}, {"key": "three"})
    connection = read_own_connection("t")
    assert dict(connection.configs) == {**CONFIGS, "contract": "chat"}
    assert dict(connection.secrets) == {"key": "three"}
    assert delete_own_connection("t") and not delete_own_connection("t")
    assert list_own_connections() == {}


def test_the_file_and_the_list_contain_no_secret():
    write_own_connection("t", CONFIGS, {"key": "very-secret-key"})
    assert "very-secret-key" not in own_store_path().read_text()
    entry = list_own_connections()["t"]
    assert len(entry.pop("token")) == 16
    assert entry == {"configs": CONFIGS, "secrets": ["key"]}


def key_entry() -> str:
    """Return the keyring's user name of the key of connection t."""
    return keyring_username("t", "key", list_own_connections()["t"].get("token"))


def test_a_failed_write_leaves_the_old_endpoint_its_old_key(monkeypatch):
    import keyring

    def full_disk(*args):
        written.append(args[1]["t"]["token"])
        raise OpsError("the disk is full")

    written: list[str] = []
    write_own_connection("t", CONFIGS, {"key": "old"})
    monkeypatch.setattr(own_connections, "write_json", full_disk)
    with pytest.raises(OpsError, match="the disk is full"):
        write_own_connection("t", {"endpoint": "https://new.example"}, {"key": "new"})
    connection = read_own_connection("t")
    assert (dict(connection.configs), dict(connection.secrets)) == (CONFIGS, {"key": "old"})
    monkeypatch.undo()
    assert keyring.get_password("phi3", keyring_username("t", "key", written[0])) is None


def test_a_reader_never_pairs_an_endpoint_with_another_key(monkeypatch):
    import keyring

    new = {"endpoint": "https://new.example"}
    write_own_connection("t", CONFIGS, {"key": "old"})
    get_password = keyring.get_password

    def replace_before_reading(*args):
        monkeypatch.setattr(keyring, "get_password", get_password)
        write_own_connection("t", new, {"key": "new"})
        return get_password(*args)

    monkeypatch.setattr(keyring, "get_password", replace_before_reading)
    connection = read_own_connection("t")
    assert (dict(connection.configs), dict(connection.secrets)) == (new, {"key": "new"})


def test_a_replaced_secret_leaves_the_keyring():
    import keyring

    write_own_connection("t", CONFIGS, {"key": "old"})
    earlier = key_entry()
    write_own_connection("t", CONFIGS, {"key": "new"})
    assert keyring.get_password("phi3", earlier) is None
    assert keyring.get_password("phi3", key_entry()) == "new"


def test_a_connection_of_an_earlier_version_is_read_and_replaced():
    import keyring

    write_own_connection("t", CONFIGS, {})
    keyring.set_password("phi3", "t/key", "old")
    own_store_path().write_text(json.dumps({"t": {"configs": CONFIGS, "secrets": ["key"]}}))
    assert dict(read_own_connection("t").secrets) == {"key": "old"}
    write_own_connection("u", CONFIGS, {})  # does not change the other connection
    assert delete_own_connection("u")
    assert dict(read_own_connection("t").secrets) == {"key": "old"}
    write_own_connection("t", CONFIGS, {"key": "new"})
    assert dict(read_own_connection("t").secrets) == {"key": "new"}
    assert keyring.get_password("phi3", "t/key") is None


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_only_the_user_can_open_the_folder():
    write_own_connection("t", CONFIGS, {"key": "k"})
    assert user_folder().stat().st_mode & 0o077 == 0


def test_a_secret_that_the_keyring_lost_is_named():
    import keyring

    write_own_connection("t", CONFIGS, {"key": "k"})
    keyring.delete_password("phi3", key_entry())
    with pytest.raises(ConfigError, match="keyring does not contain the `key` of .* 't'"):
        read_own_connection("t")


def test_a_keyring_that_fails_is_named_without_its_text(monkeypatch):
    import keyring

    def broken(*args):
        raise RuntimeError("very-secret-key")

    write_own_connection("t", CONFIGS, {"key": "k"})
    monkeypatch.setattr(keyring, "get_password", broken)
    with pytest.raises(ConfigError, match=r"'t' from the keyring \(RuntimeError\)") as error:
        read_own_connection("t")
    assert "very-secret-key" not in str(error.value)


def test_without_the_package_keyring_the_error_names_it(monkeypatch):
    write_own_connection("t", CONFIGS, {"key": "k"})
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError, match="Install the package keyring"):
        read_own_connection("t")
    monkeypatch.undo()


def test_a_damaged_file_is_named():
    write_own_connection("t", CONFIGS, {"key": "k"})
    for text in ('{"t": 3}', '{"t": {"configs": {}, "secrets": [3]}}', "[" * 200_000, "\0"):
        own_store_path().write_text(text)
        with pytest.raises(ConfigError, match="connections.json is damaged"):
            list_own_connections()
    own_store_path().unlink()


def test_the_folder_is_in_the_users_data(monkeypatch, tmp_path):
    monkeypatch.delenv("PHI3_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert user_folder() == tmp_path / "phi3"
