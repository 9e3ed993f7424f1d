"""A wheel of the tool package alone, made of the files that are here: for images that run flows."""

from __future__ import annotations

import tempfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import phi3_tools

from ..hashing import sha256_urlsafe
from .lock import PACKAGE


def build_tool_wheel() -> tuple[str, bytes]:
    """Its file name and its content, the same bytes for the same files.

    It has the package's name and version, and of its requirements those that flows have. The form is that
    of the "Binary distribution format" specification.
    """
    own = distribution(PACKAGE)
    name = f"{PACKAGE.replace('-', '_')}-{own.version}"
    info = f"{name}.dist-info"
    needs = [need for need in own.requires or () if "extra ==" not in need]
    tools = own.entry_points.select(group="package_tools")
    package = Path(phi3_tools.__file__).parent
    content = {
        f"phi3_tools/{file.relative_to(package).as_posix()}": file.read_bytes()
        for file in sorted(package.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    texts = {
        "METADATA": ["Metadata-Version: 2.1", f"Name: {PACKAGE}", f"Version: {own.version}"]
        + [f"Requires-Dist: {need}" for need in needs],
        "WHEEL": ["Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any"],
        "entry_points.txt": ["[package_tools]", *(f"{tool.name} = {tool.value}" for tool in tools)],
    }
    content |= {f"{info}/{file}": "\n".join([*text, ""]).encode() for file, text in texts.items()}
    record = [f"{file},sha256={sha256_urlsafe(data)},{len(data)}" for file, data in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for member, data in content.items():
                archive.writestr(zipfile.ZipInfo(member), data)
        file.seek(0)
        return f"{name}-py3-none-any.whl", file.read()
