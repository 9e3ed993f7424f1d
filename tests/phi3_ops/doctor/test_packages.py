"""Installed packages: missing ones, wrong versions, and versions with known issues."""

from __future__ import annotations

from importlib import metadata

import pytest
from packaging.specifiers import SpecifierSet

from phi3_ops.doctor import packages
from phi3_ops.doctor.packages import KNOWN_ISSUES, _requirements, check_packages
from phi3_ops.doctor.runner import FAIL, OK, WARN


@pytest.fixture
def installed(monkeypatch):
    """Sets the versions of packages; None is a missing package."""
    _requirements.cache_clear()

    def put(**versions):
        by_name = {name.replace("_", "-"): version for name, version in versions.items()}

        def version(package):
            number = by_name[package] if package in by_name else metadata.version(package)
            if number is None:
                raise metadata.PackageNotFoundError(package)
            return number

        monkeypatch.setattr(packages, "metadata", _Metadata(version))

    yield put
    _requirements.cache_clear()


class _Metadata:
    PackageNotFoundError = metadata.PackageNotFoundError
    requires = staticmethod(metadata.requires)

    def __init__(self, version):
        self.version = version


@pytest.mark.parametrize(
    "extra", ["local", "promptflow", "azure", "train", "documents", "serve", "eval"]
)
def test_the_versions_of_the_tests_are_compatible(extra):
    assert check_packages(extra).status in (OK, WARN)


@pytest.mark.parametrize(
    ("extra", "versions", "status", "message"),
    [
        (
            "azure",
            {"azure_ai_ml": "1.35.2"},
            FAIL,
            "azure-ai-ml 1.35.2 is not ==1.32.0 (from 1.33 on",
        ),
        (
            "azure",
            {"six": None},
            FAIL,
            "six is missing (azure-ai-ml imports it without requiring it)",
        ),
        ("train", {"mlflow_skinny": "3.18.0"}, FAIL, "mlflow-skinny 3.18.0 is not <3.18,>=3.5"),
        ("train", {"trl": "0.9.4", "peft": None}, FAIL, "peft is missing; trl 0.9.4 is not >=1.10"),
        (
            "promptflow",
            {"opentelemetry_sdk": "1.39.0"},
            WARN,
            "opentelemetry-sdk 1.39.0 is not <1.39.0,>=1.22.0, which promptflow-tracing requires",
        ),
        (
            "promptflow",
            {"promptflow_tracing": None},
            FAIL,
            "promptflow-tracing is missing, which promptflow",
        ),
        ("promptflow", {"filelock": "3.30.0"}, WARN, "filelock 3.30.0: `pf flow test --ui` fails"),
        (
            "promptflow",
            {"setuptools": "82.0.0"},
            WARN,
            "setuptools 82.0.0: `pf tool validate` fails",
        ),
    ],
)
def test_a_missing_package_or_a_wrong_version_is_named(installed, extra, versions, status, message):
    installed(**{"setuptools": "80.0.0", "filelock": "3.29.0", **versions})
    finding = check_packages(extra)
    assert finding.status == status
    assert message in finding.what
    assert "pip install" in finding.fix


def test_without_problems_and_known_issues_it_is_ok(installed):
    installed(setuptools="80.0.0", filelock="3.29.0")
    assert check_packages("promptflow").status == OK


def test_a_part_of_an_extra(installed):
    installed(torch=None, uvicorn=None)
    finding = check_packages("serve", ("fastapi", "uvicorn"))
    assert finding.status == FAIL
    assert finding.what.startswith("uvicorn is missing (`phi3 serve` and `pf flow serve")
    assert "torch" not in finding.what


def test_known_issues_have_version_specifiers():
    for issue in KNOWN_ISSUES:
        assert str(SpecifierSet(issue.versions)) == issue.versions
