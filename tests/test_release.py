"""The release: versions, licences and the bill of materials of what users install."""

from __future__ import annotations

import csv

import pytest

import release


def test_the_packages_of_the_product_are_those_that_users_install():
    assert {"local", "take-home-onnx", "agent-framework"} < release.product_extras()
    names = set(release.product_packages(release.product_extras())[0])
    assert {"requests", "pydantic", "torch", "openvino", "azure-ai-ml", "promptflow-core"} <= names
    assert not {"pytest", "mypy", "playwright", "phi3-promptflow"} & names


def test_the_base_needs_little():
    packages, missing = release.product_packages(())
    assert set(packages) == {"requests", "urllib3", "certifi", "charset-normalizer", "idna"}
    assert missing == []


def test_packages_that_are_not_installed_are_listed():
    packages, missing = release.product_packages(["agent-framework"])
    assert missing == ["agent-framework-core"]  # promptflow is installed
    assert "jinja2" in packages


def test_each_package_declares_a_licence(tmp_path):
    packages, _ = release.product_packages(release.product_extras())
    release.write_licences(packages, tmp_path / "licences.csv")
    with (tmp_path / "licences.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(packages)
    # No licence that would bind users of the package: LGPL and MPL do not, if a package is only imported.
    strict = [r for r in rows if "GPL" in r["licence"] and "LGPL" not in r["licence"]]
    assert [row["package"] for row in strict] == []


@pytest.mark.slow  # cyclonedx-py reads the metadata of every installed package
def test_the_bill_of_materials():
    document = release.bill_of_materials(["requests", "urllib3"])
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == release.PROJECT
    assert {c["name"] for c in document["components"]} == {"requests", "urllib3"}
    references = {c["bom-ref"] for c in document["components"]}
    for item in document["dependencies"]:
        assert set(item["dependsOn"]) <= references
    assert str(release.ROOT) not in str(document)


@pytest.mark.parametrize(
    ("headings", "message"),
    [("## [Unreleased]\n", "is missing"), ("## [9.9.9] - 2026-01-01\n", "is 9.9.9")],
)
def test_a_release_needs_a_dated_heading(tmp_path, monkeypatch, headings, message):
    monkeypatch.setattr(release, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.0.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(headings)
    with pytest.raises(SystemExit, match=message):
        release.version()
    (tmp_path / "CHANGELOG.md").write_text("## [1.0.0] - 2026-11-26\n" + headings)
    assert release.version() == "1.0.0"
