"""Export a model into a folder: GGUF files, or an ONNX model, with a model card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OpsError
from ..files import atomic_folder, refuse_foreign_files, stage_marker
from ..hashing import file_sha256
from ..names import safe_name
from ..progress import ProgressLines, waiting
from ..terminal import console
from .card import CARD_FILE, ExportedFile, write_card
from .chat_pieces import ChatPieces, split_template
from .formats import (
    FLOATS,
    FORMATS,
    FOUNDRY_LOCAL,
    MOST_QUANTIZED_BYTES,
    OLLAMA,
    ONNX_PRECISIONS,
    Format,
    choose_quantizations,
)
from .gguf_file import check_settings, limitations, write_gguf
from .ollama import TITLE as OLLAMA_TITLE
from .ollama import make_modelfile
from .onnx_folder import TITLE as FOUNDRY_TITLE
from .onnx_folder import write_inference_file, write_onnx
from .source import SourceModel, load_source
from .tokenizer_check import check_tokenizer

SPARE_BYTES = 100 * 10**6  # for the tokenizer, and for what others write meanwhile
Notify = Callable[[str], None]


@dataclass(frozen=True)
class ExportedModel:
    """A finished export.

    Attributes:
        name: name of the model for people.
        folder: folder of the export.
        files: files with weights.
        notes: how the exported model differs, in full sentences.
    """

    name: str
    folder: Path
    files: tuple[ExportedFile, ...]
    notes: tuple[str, ...]


def export_model(
    model: str,
    target: str,
    quantizations: Sequence[str],
    folder: Path,
    *,
    name: str | None = None,
    system: str | None = None,
    notify: Notify = lambda message: None,
) -> ExportedModel:
    """Export a model. Either all files are written or none.

    Args:
        model: folder of a Phi-3 or of `phi3 finetune`, short name, or GGUF file.
        target: a key of FORMATS.
        quantizations: quantizations to make; none means the usual one.
        folder: folder to write to; files of an earlier export are replaced.
        name: name of the model for people; None takes its own.
        system: system message for Ollama; None takes the one of the chat template.
        notify: function that gets a message before each long step.

    Raises:
        OpsError: the model or the quantization cannot be exported, the disk is too small, or a file of
            others would be replaced.
    """
    chosen_format = FORMATS[target]
    chosen = choose_quantizations(chosen_format, tuple(quantizations))
    source = load_source(model, name)
    job = _Job(source, chosen_format, chosen, system, notify)
    job.check()
    _check_space(folder, job.needed_bytes())
    names = job.file_names()
    refuse_foreign_files(folder, names)
    with atomic_folder(folder, last=CARD_FILE) as content:
        files, notes = job.write(content)
        write_card(content, source, chosen_format, files, notes)
        written = [path.name for path in content.iterdir()]
        refuse_foreign_files(folder, written)
        stage_marker(content, folder, written)
    return ExportedModel(source.name, folder, files, notes)


@dataclass(frozen=True)
class _Job:
    """The export of a model in one format."""

    source: SourceModel
    format: Format
    quantizations: tuple[str, ...]
    system: str | None
    notify: Notify

    @property
    def stem(self) -> str:
        """Beginning of the names of the files."""
        return safe_name(self.source.name)

    def gguf_name(self, quantization: str) -> str:
        return f"{self.stem}-{quantization.upper()}.gguf"

    def modelfile_name(self, quantization: str) -> str:
        """The first quantization has the name that Ollama looks for."""
        is_first = quantization == self.quantizations[0]
        return "Modelfile" if is_first else f"Modelfile.{quantization}"

    def file_names(self) -> list[str]:
        """Return the names of the files that are certainly written."""
        if not self.format.is_gguf:
            return [CARD_FILE, "model.onnx", "genai_config.json"]
        names = [CARD_FILE, *map(self.gguf_name, self.quantizations)]
        if self.format.name == OLLAMA:
            names += map(self.modelfile_name, self.quantizations)
        return names

    def needed_bytes(self) -> int:
        """Return the most bytes that the export takes."""
        per_weight = {**FLOATS, **ONNX_PRECISIONS}
        sizes = (per_weight.get(name, MOST_QUANTIZED_BYTES) for name in self.quantizations)
        # The builder of ONNX models keeps a second copy until it has quantized.
        copies = 1 if self.format.is_gguf else 2
        return int(copies * sum(sizes) * self.source.weights.count) + SPARE_BYTES

    def check(self) -> None:
        """Raise OpsError if the program that reads the export cannot run the model."""
        if self.format.is_gguf:
            check_settings(self.source)
        if self.format.name == OLLAMA:
            self._modelfile(self.gguf_name(self.quantizations[0]))
        if self.format.name == FOUNDRY_LOCAL:
            self._pieces(FOUNDRY_TITLE)

    def _pieces(self, reader: str) -> ChatPieces:
        return split_template(self.source.tokenizer, self.source.end_tokens, reader)

    def _modelfile(self, gguf_name: str) -> str:
        return make_modelfile(self.source, self._pieces(OLLAMA_TITLE), gguf_name, self.system)

    def write(self, folder: Path) -> tuple[tuple[ExportedFile, ...], tuple[str, ...]]:
        """Write all files except for the card. Return the files with weights, and notes on them."""
        return self._write_gguf(folder) if self.format.is_gguf else self._write_onnx(folder)

    def _write_gguf(self, folder: Path) -> tuple[tuple[ExportedFile, ...], tuple[str, ...]]:
        self.notify("comparing the tokenizer with llama.cpp's")
        with (
            tempfile.TemporaryDirectory(dir=folder.parent) as temporary,
            waiting(console(to_stderr=True), "comparing the tokenizer"),
        ):
            check_tokenizer(self.source, Path(temporary))
        files, notes = [], limitations(self.source)
        for quantization in self.quantizations:
            path = folder / self.gguf_name(quantization)
            self.notify(f"writing {path.name}")
            report = ProgressLines("written", "million parameters", 10**6)
            tensors = write_gguf(self.source, path, quantization, report)
            files.append(self._exported(path, quantization, dict(tensors.types)))
            if tensors.fallbacks:
                notes.append(
                    f"{quantization} stores {tensors.fallbacks} of the {sum(tensors.types.values())} "
                    "matrices in another type than usual, because the length of their rows is not a "
                    "multiple of its block size: the file is larger than usual."
                )
            if self.format.name == OLLAMA:
                modelfile = folder / self.modelfile_name(quantization)
                modelfile.write_text(self._modelfile(path.name), encoding="utf-8")
        return tuple(files), tuple(notes)

    def _write_onnx(self, folder: Path) -> tuple[tuple[ExportedFile, ...], tuple[str, ...]]:
        (precision,) = self.quantizations
        self.notify(f"converting to ONNX in {precision}")
        with waiting(console(to_stderr=True), f"converting to ONNX in {precision}"):
            write_onnx(self.source, folder, precision)
        if self.format.name == FOUNDRY_LOCAL:
            write_inference_file(folder, self.stem, self._pieces(FOUNDRY_TITLE))
        weights = sorted(folder.glob("model.onnx*"))
        return tuple(self._exported(path, precision, {}) for path in weights), ()

    def _exported(self, path: Path, quantization: str, types: dict[str, int]) -> ExportedFile:
        size = path.stat().st_size
        return ExportedFile(
            name=path.name,
            quantization=quantization,
            size=size,
            bits_per_weight=8 * size / self.source.weights.count,
            types=types,
            sha256=file_sha256(path),
        )


def _check_space(folder: Path, needed: int) -> None:
    """Raise OpsError if the disk is too small for the export."""
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise OpsError(
            f"the export needs up to {needed / 10**6:,.0f} MB in {folder}, and the disk has "
            f"{free / 10**6:,.0f} MB free",
            "Delete something, choose another folder with --out, or make fewer quantizations.",
        )
