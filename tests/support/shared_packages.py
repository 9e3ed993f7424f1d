"""Let a virtual environment see some large packages of this one, without installing them again.

    python shared_packages.py ENVIRONMENT PACKAGE…

The packages, and the packages that they need, are linked in a folder next to the environment. That folder
comes last on the environment's path, so that the environment's own packages win. Other packages stay
invisible.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(names: Iterable[str], excluded: Iterable[str]) -> list[Distribution]:
    """Return the installed distributions of these names and of what they need."""
    waiting, distributions = list(names), {}
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in distributions or name in excluded:
            continue
        try:
            distributions[name] = distribution(name)
        except PackageNotFoundError:
            continue  # needed on another platform
        for text in distributions[name].requires or ():
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(need.name)
    return list(distributions.values())


def link(distributions: Iterable[Distribution], folder: Path) -> None:
    """Link the top-level files and folders of distributions in a folder."""
    for package in distributions:
        root = Path(str(package.locate_file("")))
        tops = {Path(str(file)).parts[0] for file in package.files or ()}
        for top in tops - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(root / top)


def main(environment: Path, names: list[str]) -> None:
    python = environment / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    output = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    site = Path(output.stdout.strip())
    installed = {
        canonicalize_name(info.name.partition("-")[0]) for info in site.glob("*.dist-info")
    }
    folder = environment.with_name(f"{environment.name}-packages").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    link(closure(names, installed), folder)
    (site / "shared.pth").write_text(f"{folder}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
