"""Build and check a release: `make release` runs this. Nothing is uploaded.

    python tests/support/release.py OUT

OUT receives the wheel, the source distribution, `sbom.json` (CycloneDX) and `licences.csv`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "phi3-promptflow"
FOR_DEVELOPMENT = {"dev", "docs", "bench"}  # extras that users do not install
DATED_HEADING = re.compile(r"^## \[([^\]]+)\] - \d{4}-\d{2}-\d{2}$", re.MULTILINE)


def version() -> str:
    """Return the version, which must be that of the newest dated heading of CHANGELOG.md.

    Raises:
        SystemExit: it is not.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    number = str(settings["project"]["version"])
    headings = DATED_HEADING.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    if headings[:1] != [number]:
        newest = headings[0] if headings else "missing"
        sys.exit(
            f"pyproject.toml has version {number}, but the newest dated heading of CHANGELOG.md is "
            f"{newest}; write `## [{number}] - YYYY-MM-DD`"
        )
    return number


def build(folder: Path) -> dict[str, str]:
    """Build the wheel and the source distribution; return file name -> SHA-256."""
    command = [sys.executable, "-m", "build", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
    }


def product_extras() -> set[str]:
    """Return the extras that users install."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return set(settings["project"]["optional-dependencies"]) - FOR_DEVELOPMENT


def product_packages(extras: Iterable[str]) -> tuple[dict[str, Distribution], list[str]]:
    """Return the distributions that the product needs.

    Returns:
        Canonical name -> distribution, and the names of those that are not installed.
    """
    missing: list[str] = []
    waiting = [(canonicalize_name(PROJECT), frozenset(extras))]
    visited: set[tuple[str, str]] = set()
    packages: dict[str, Distribution] = {}
    while waiting:
        name, wanted = waiting.pop()
        try:
            packages[name] = distribution(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        for text in packages[name].requires or ():
            need = Requirement(text)
            for extra in ("", *wanted):
                if need.marker is None or need.marker.evaluate({"extra": extra}):
                    target = canonicalize_name(need.name)
                    if (key := (target, str(sorted(need.extras)))) not in visited:
                        visited.add(key)
                        waiting.append((target, frozenset(need.extras)))
    for name in (PROJECT, "editables"):  # the latter belongs to an editable installation
        packages.pop(name, None)
    return dict(sorted(packages.items())), sorted(set(missing))


def licence_of(package: Distribution) -> str:
    """Return the licence that a distribution declares, or an empty text."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    prefix = "License :: "
    classifiers = [c for c in metadata.get_all("Classifier") or () if c.startswith(prefix)]
    if names := [c.rpartition(" :: ")[2] for c in classifiers if c.count(" :: ") > 1]:
        return " or ".join(names)
    first_line = (metadata.get("License") or "").strip().splitlines()[:1]
    if first_line:
        return first_line[0]
    return "a licence file" if metadata.get_all("License-File") else ""


def write_licences(packages: Mapping[str, Distribution], path: Path) -> list[str]:
    """Write name, version and licence of each package; return the packages that declare none."""
    rows = [(name, package.version, licence_of(package)) for name, package in packages.items()]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("package", "version", "licence"), *rows])
    return [name for name, _, licence in rows if not licence]


def bill_of_materials(names: Iterable[str]) -> dict[str, Any]:
    """Return the CycloneDX document of this environment, reduced to the packages with these names."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable]
    options = ["--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--short-PURLs"]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    wanted = set(names)
    document["components"] = [
        c for c in document["components"] if canonicalize_name(c["name"]) in wanted
    ]
    root = document["metadata"]["component"]["bom-ref"]
    references = {root, *(component["bom-ref"] for component in document["components"])}
    document["dependencies"] = [
        {**item, "dependsOn": [ref for ref in item.get("dependsOn", ()) if ref in references]}
        for item in document["dependencies"]
        if item["ref"] in references
    ]
    return document


def main(out: Path) -> None:
    number = version()
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        sys.exit(f"{out} is not empty; remove it, or choose another folder")
    files = build(out)
    with tempfile.TemporaryDirectory() as folder:
        if build(Path(folder)) != files:
            sys.exit("two builds differ: the release cannot be reproduced")
    command = [sys.executable, "-m", "twine", "check", "--strict", *(out / name for name in files)]
    subprocess.run(command, check=True)
    packages, missing = product_packages(product_extras())
    if missing:  # agent-framework cannot be installed beside promptflow
        names = ", ".join(missing)
        print(f"warning: sbom.json lacks {names}, which are not installed", file=sys.stderr)
    (out / "sbom.json").write_text(json.dumps(bill_of_materials(packages), indent=1) + "\n")
    if unlicensed := write_licences(packages, out / "licences.csv"):
        print(f"warning: no licence is declared by {', '.join(unlicensed)}", file=sys.stderr)
    for name, digest in files.items():
        print(f"{digest}  {name}")
    print(f"release {number}: two builds are identical; {len(packages)} packages in sbom.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
