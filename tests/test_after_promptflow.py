"""The tests of tests/after_promptflow, each file in the environment without promptflow."""

from pathlib import Path

import pytest

from after_promptflow import pytest_after, python_after

FILES = sorted((Path(__file__).parent / "after_promptflow").glob("test_*.py"))
SLOW = {"test_parity"}  # it starts a process for each export of each flow


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.stem, marks=[pytest.mark.slow] if file.stem in SLOW else [])
        for file in FILES
    ],
)
def test_it_holds_without_promptflow(file):
    done = pytest_after(file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_environment_has_no_promptflow():
    code = (
        "import importlib.util as u; print(u.find_spec('promptflow'), u.find_spec('torch') is None)"
    )
    assert python_after("-c", code).stdout.split() == ["None", "False"]
