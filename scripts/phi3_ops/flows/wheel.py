"""A wheel of the tool package alone, built from the installed files: for images that run flows."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

import phi3_tools

from ..hashing import sha256_urlsafe
from ..installation import PACKAGE, wheel_name
from .content import flow_files

# The compute sessions of Prompt flow have Python 3.9. The engine of `phi3_tools.flow` needs 3.10.
REQUIRED_PYTHON = ">=3.9"
# Extra of the wheel -> the packages of this package's extra of that name which run flows.
ENGINE_PACKAGES = {"flow": ("jinja2", "pyyaml"), "promptflow": ("promptflow-core",)}


# Requirements of the extras, and what an editable installation adds.
_LEFT_OUT = re.compile(r"extra ==|^editables\b")


@dataclass(frozen=True)
class ToolWheel:
    """A wheel: its file name and its content."""

    name: str
    content: bytes

    def write(self, folder: Path) -> Path:
        """Write the wheel into an existing folder; return its path."""
        path = folder / self.name
        path.write_bytes(self.content)
        return path


def build_tool_wheel() -> ToolWheel:
    """Build the wheel of `phi3_tools`. The same files give the same bytes.

    The wheel has the name and the version of this package, and those of its requirements that flows need.
    Its extras are `flow` and `promptflow`, for the two engines; to run flows, promptflow-core is enough.
    The layout follows the "Binary distribution format" specification.
    """
    package = distribution(PACKAGE)
    name = f"{PACKAGE.replace('-', '_')}-{package.version}"
    info = f"{name}.dist-info"
    files = _tool_files() | {f"{info}/{file}": text for file, text in _metadata(package).items()}
    record = [f"{file},sha256={sha256_urlsafe(data)},{len(data)}" for file, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    return ToolWheel(wheel_name(), _zip(files))


def _tool_files() -> dict[str, bytes]:
    package = Path(phi3_tools.__file__).parent
    return {
        f"phi3_tools/{file.relative_to(package).as_posix()}": file.read_bytes()
        for file in flow_files(package)
    }


def _metadata(package: Distribution) -> dict[str, bytes]:
    needs = [need for need in package.requires or () if not _LEFT_OUT.search(need)]
    for extra, names in ENGINE_PACKAGES.items():
        needs += [n for n in package.requires or () if n.startswith(names) and _extra(n) == extra]
    tools = package.entry_points.select(group="package_tools")
    lines = {
        "METADATA": ["Metadata-Version: 2.1", f"Name: {PACKAGE}", f"Version: {package.version}"]
        + [f"Requires-Python: {REQUIRED_PYTHON}"]
        + [f"Requires-Dist: {need}" for need in needs]
        + [f"Provides-Extra: {extra}" for extra in ENGINE_PACKAGES],
        "WHEEL": ["Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any"],
        "entry_points.txt": ["[package_tools]", *(f"{tool.name} = {tool.value}" for tool in tools)],
    }
    return {file: "\n".join([*text, ""]).encode() for file, text in lines.items()}


def _extra(requirement: str) -> str | None:
    """Return the extra of a requirement, as in `jinja2>=3; extra == 'flow'`."""
    match = re.search(r"extra == ['\"]([^'\"]+)", requirement)
    return match[1] if match else None


def _zip(files: Mapping[str, bytes]) -> bytes:
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name), data)
        file.seek(0)
        return file.read()
