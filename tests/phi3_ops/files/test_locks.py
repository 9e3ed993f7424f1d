"""Locks between processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from phi3_ops.files.locks import file_lock, try_lock

HOLD = """
import sys, time
from pathlib import Path
from phi3_ops.files.locks import file_lock
with file_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_waits_and_then_fails(tmp_path):
    path = tmp_path / "lock"
    held = pytest.raises(TimeoutError, match="another process holds the lock")
    with file_lock(path), held, file_lock(path, timeout_s=0.05):
        pass
    with file_lock(path, timeout_s=0.05):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "locked\n"
        with path.open() as file:
            assert not try_lock(file.fileno())
        holder.send_signal(signal.SIGKILL)
    with file_lock(path, timeout_s=0.05):
        pass


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="needs links that can be refused")
def test_a_link_is_not_opened(tmp_path):
    (tmp_path / "victim").write_text("text")
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError), file_lock(tmp_path / "lock"):
        pass
    assert (tmp_path / "victim").read_text() == "text"
