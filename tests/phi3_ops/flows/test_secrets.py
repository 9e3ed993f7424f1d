"""The search for keys in files that leave this machine."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
from urllib.parse import quote

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.flows.secrets import KEY_VARIABLES, MAX_UNPACKED_BYTES, refuse_secrets
from phi3_ops.pf.client import pf_client
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


# -- other forms of a key ------------------------------------------------------------------------------


def zipped(name, content):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


LONG_KEY = "k" * 30 + "-a-key-of-the-store-" + "z" * 30
FORMS = {
    **{
        f"base64 at {n}": lambda key, n=n: base64.b64encode(b"x" * n + key + b"yz")
        for n in range(4)
    },
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(b"?" + key),
    "base64 in lines": lambda key: base64.encodebytes(b"user:" * 9 + key),
    "base64 in a JSON text": lambda key: base64.encodebytes(key).replace(b"\n", b"\\n"),
    "UTF-16 LE": lambda key: key.decode().encode("utf-16-le"),
    "UTF-16 BE": lambda key: b"\0" + key.decode().encode("utf-16-be"),
    "UTF-16 in base64": lambda key: base64.b64encode(key.decode().encode("utf-16-le")),
    "base64 in UTF-16": lambda key: base64.b64encode(key).decode().encode("utf-16"),
    "gzip": gzip.compress,
    "gzip twice": lambda key: gzip.compress(gzip.compress(key)),
    "two gzip streams": lambda key: gzip.compress(b"x") + gzip.compress(key),
    "zip": lambda key: zipped("a.txt", key),
    "a zip file behind other bytes": lambda key: b"#!/bin/sh\n" + zipped("a.txt", key),
    "a wheel in a zip file": lambda key: zipped("a.whl", zipped("a.py", key)),
    "gzip in a zip file": lambda key: zipped("a.gz", gzip.compress(key)),
    "base64 in gzip": lambda key: gzip.compress(base64.b64encode(key)),
}


@pytest.mark.finding(
    6,
    "a flow contains the connection's key as base64, UTF-16, or inside gzip or zip",
    "the image is not built, and the message names the file and what was searched",
)
@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_found_in_every_form(monkeypatch, tmp_path, form):
    for key in (KEY, LONG_KEY, "a/key+with?signs=="):
        monkeypatch.setenv(KEY_VARIABLES[0], key)
        (tmp_path / "a.bin").write_bytes(FORMS[form](key.encode()))
        message = f"^a.bin.* contains the value of {KEY_VARIABLES[0]}"
        with pytest.raises(OpsError, match=message) as caught:
            refuse_secrets(tmp_path)
        assert key not in str(caught.value)


@pytest.mark.parametrize("text", [json.dumps, quote, lambda key: json.dumps(json.dumps(key))])
def test_an_escaped_key_is_found(monkeypatch, tmp_path, text):
    monkeypatch.setenv(KEY_VARIABLES[0], key := 'a "key" with é&')
    (tmp_path / "a.txt").write_text(text(key))
    with pytest.raises(OpsError, match="a.txt contains the value of"):
        refuse_secrets(tmp_path)


def test_a_key_in_the_configs_of_a_connection_is_found(tmp_path):
    """Foundry lets users store a key in either field."""
    from promptflow.entities import CustomConnection

    configs = {"endpoint": "https://a.b/score", "key": KEY}
    connection = CustomConnection(name="phi3-configs", configs=configs, secrets={"x": "y"})
    pf_client().connections.create_or_update(connection)
    (tmp_path / "a.txt").write_text(KEY)
    try:
        with pytest.raises(OpsError, match="a.txt contains the key of phi3-configs"):
            refuse_secrets(tmp_path)
    finally:
        delete_connection("phi3-configs")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("deep.gz", gzip.compress(gzip.compress(gzip.compress(b"x"))), "is packed more than twice"),
        ("large.gz", gzip.compress(bytes(MAX_UNPACKED_BYTES + 1)), "unpacks to more than"),
        ("large.zip", zipped("a", bytes(MAX_UNPACKED_BYTES + 1)), "unpacks to more than"),
        ("broken.zip", zipped("a", b"x" * 999)[:20] + zipped("a", b"x")[21:], "cannot be unpacked"),
        ("half.gz", gzip.compress(b"x" * 999)[:-12], "cannot be unpacked"),
    ],
    # Without these, an id contains the time that gzip writes, and differs between test processes.
    ids=["deep.gz", "large.gz", "large.zip", "broken.zip", "half.gz"],
)
def test_a_file_that_cannot_be_searched_is_refused(connection, tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OpsError, match=f"{name}.* {reason}"):
        refuse_secrets(tmp_path)


def test_the_search_says_what_it_did(connection, monkeypatch, tmp_path):
    (tmp_path / "a.txt").write_text("PHI3_KEY")
    assert refuse_secrets(tmp_path) == (
        "Searched 1 file for 1 key that this machine knows: as text, base64 and UTF-16, and inside "
        "gzip and zip files. Other keys and other forms are not found."
    )
    monkeypatch.setenv(KEY_VARIABLES[0], "a-key-of-the-environment")
    assert "Searched 1 file for 2 keys " in refuse_secrets(tmp_path)
