"""A file of lines that another thread hashes and writes."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from phi3_ops.data.hashed_lines import WRITE_BLOCK, HashedLines


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_the_hash_is_that_of_the_file(tmp_path, count):
    lines = [f"{n} ".encode() * 200 for n in range(count)]  # 5000 lines are several blocks
    path = tmp_path / "lines"
    with ThreadPoolExecutor(1) as thread, HashedLines(path, thread) as file:
        for line in lines:
            file.write(line)
    content = path.read_bytes()
    assert content == b"".join(line + b"\n" for line in lines)
    assert count < 5000 or len(content) > 3 * WRITE_BLOCK
    assert file.hash.hexdigest() == hashlib.sha256(content).hexdigest()


def test_two_files_share_a_thread(tmp_path):
    with (
        ThreadPoolExecutor(1) as thread,
        HashedLines(tmp_path / "a", thread) as a,
        HashedLines(tmp_path / "b", thread) as b,
    ):
        for n in range(10):
            (a if n % 2 else b).write(str(n).encode())
    assert (tmp_path / "a").read_bytes() == b"1\n3\n5\n7\n9\n"
    assert (tmp_path / "b").read_bytes() == b"0\n2\n4\n6\n8\n"


def test_an_error_of_the_thread_is_raised(tmp_path):
    with ThreadPoolExecutor(1) as thread:
        file = HashedLines(tmp_path / "a", thread)
        file.write(b"x")
        file._file.close()
        with pytest.raises(ValueError, match="closed file"):
            file.__exit__()
