"""The hashes that other rooms store: their forms, and what they refuse."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_ops.errors import OpsError
from phi3_ops.hashing import (
    file_sha256,
    parts_sha256,
    sha256_base64,
    sha256_hex,
    sha256_urlsafe,
)

EMPTY_HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_forms_of_one_hash():
    assert sha256_hex(b"") == EMPTY_HEX
    assert sha256_base64(b"") == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert sha256_urlsafe(b"") == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"


def test_a_file_is_hashed_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("phi3_ops.hashing.READ_BYTES", 3)
    file = tmp_path / "data"
    file.write_bytes(b"0123456789")
    assert file_sha256(file) == hashlib.sha256(b"0123456789").hexdigest()


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OpsError, match="cannot read .*gone: No such file"):
        file_sha256(tmp_path / "gone")


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_different_lists_of_parts_never_have_the_same_hash(one, other):
    assert (parts_sha256(one) == parts_sha256(other)) == (one == other)


def test_parts_are_hashed_with_their_lengths():
    assert parts_sha256([b"ab", b""]) == hashlib.sha256(b"2:ab0:").hexdigest()
