"""Whether a process still runs; another process that has its id now does not count."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from phi3_ops.runs.process import describe_this_process, process_is_running


def test_this_process_is_running():
    assert process_is_running(describe_this_process())


@pytest.mark.parametrize(
    "description",
    [f"{os.getpid()} 1", "", "x y", "-1 1"],
    ids=["other", "empty", "text", "below 0"],
)
def test_another_process_with_this_id_is_not_the_same(description):
    assert not process_is_running(description)


def test_a_process_that_has_ended_is_not_running():
    code = "from phi3_ops.runs.process import *; print(describe_this_process())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not process_is_running(done.stdout.strip())
