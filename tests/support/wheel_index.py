"""A package index in a folder, with a wheel that contains a tiny GGUF file."""

from __future__ import annotations

import zipfile
from pathlib import Path

from phi3_ops.hashing import file_sha256
from phi3_ops.models.catalog import PackagedModel

NAME = "tiny-gguf"
DIST_INFO = "phi3_test_model-1.0.dist-info"


def pack(file: Path, index: Path, *, member: str | None = None) -> PackagedModel:
    """Pack a GGUF file into a wheel of the index, and return the model that is in it.

    Args:
        file: the GGUF file.
        index: folder of wheels, for PIP_FIND_LINKS.
        member: name of the file in the wheel, if it is not the expected one.
    """
    index.mkdir(exist_ok=True)
    with zipfile.ZipFile(index / "phi3_test_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(file, member or f"phi3_test_model/{file.name}")
        metadata = "Metadata-Version: 2.1\nName: phi3-test-model\nVersion: 1.0\n"
        wheel.writestr(f"{DIST_INFO}/METADATA", metadata + "Requires-Dist: not-wanted\n")
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{DIST_INFO}/WHEEL", tag)
        wheel.writestr(f"{DIST_INFO}/RECORD", "")
    return PackagedModel(
        title="Tiny-Instruct",
        distribution="phi3-test-model",
        package="phi3_test_model",
        version="1.0",
        file=file.name,
        file_bytes=file.stat().st_size,
        sha256=file_sha256(file),
        converted_bytes=1_000_000,
    )
