"""Whether the installed Prompt flow fits is read from one table, and an untested one is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

from phi3_ops.pf import expectations
from phi3_ops.pf.expectations import (
    BATCH_ENGINE,
    SERVING_APP,
    TOOL_THREADS,
    is_supported,
    untested_warning,
)

FEATURES = {"batch": BATCH_ENGINE, "serving": SERVING_APP, "threads": TOOL_THREADS}
PARTS = [
    (name, table, part)
    for name, feature in FEATURES.items()
    for table in ("signatures", "identities")
    for part in getattr(feature, table)
]


@pytest.mark.parametrize("feature", FEATURES.values(), ids=FEATURES)
def test_this_prompt_flow_is_supported(feature):
    assert is_supported(feature)
    assert untested_warning() is None


def test_this_prompt_flow_is_supported_in_a_new_process():
    """Prompt flow's modules cannot be imported in any order."""
    code = "from phi3_ops.pf import untested_warning; print(untested_warning())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "None\n", done.stderr


@pytest.mark.parametrize(("name", "table", "part"), PARTS)
def test_a_part_that_is_gone_or_has_changed_is_noticed(name, table, part, monkeypatch):
    feature = FEATURES[name]
    expected = getattr(feature, table)
    monkeypatch.setitem(expected, part + "_of_another_version", expected[part])
    assert not is_supported(feature)
    monkeypatch.delitem(expected, part + "_of_another_version")
    assert is_supported(feature)
    monkeypatch.setitem(expected, part, ["other"])
    assert not is_supported(feature)


@pytest.mark.parametrize("feature", FEATURES.values(), ids=FEATURES)
def test_another_version_is_not_supported(feature, monkeypatch):
    monkeypatch.setattr(expectations, "version", lambda package: "1.19.0")
    assert not is_supported(feature)


def test_a_missing_package_is_not_supported(monkeypatch):
    def missing(package):
        raise expectations.PackageNotFoundError(package)

    monkeypatch.setattr(expectations, "version", missing)
    assert not is_supported(BATCH_ENGINE)


def test_the_warning_names_the_version_and_the_consequence(monkeypatch):
    monkeypatch.setattr(expectations, "version", lambda package: "1.19.0")
    assert untested_warning() == (
        "Prompt flow 1.19.0 is untested; using its own engine, which does not slow down on 429"
    )
