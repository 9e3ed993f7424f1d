"""The model card of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .formats import Format
from .source import SourceModel

CARD_FILE = "README.md"
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ExportedFile:
    """A file with weights.

    Attributes:
        name: name of the file.
        quantization: its quantization.
        size: its size in bytes.
        bits_per_weight: bits of the file per parameter of the model.
        types: type of numbers -> number of matrices of that type; empty if it is unknown.
        sha256: its SHA-256.
    """

    name: str
    quantization: str
    size: int
    bits_per_weight: float
    types: Mapping[str, int]
    sha256: str


def write_card(
    folder: Path,
    source: SourceModel,
    target: Format,
    files: Sequence[ExportedFile],
    notes: Sequence[str],
) -> None:
    """Write the model card of an export.

    Args:
        folder: folder of the export.
        source: the model.
        target: format of the export.
        files: files with weights.
        notes: how the exported model differs, in full sentences.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - it is Markdown
    )
    text = environment.get_template("card.md.jinja").render(
        source=source,
        parameters=source.weights.count,
        context=source.config.max_position_embeddings,
        target=target,
        files=files,
        notes=notes,
        model_id=files[0].name.rsplit("-", 1)[0].lower() if target.is_gguf else source.name,
    )
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
