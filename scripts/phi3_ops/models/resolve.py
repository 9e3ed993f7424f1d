"""Turn the name of a model into a folder: short names and GGUF files are converted into the cache."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import paths
from ..errors import OpsError
from ..files import finish_writing, new_folder, remove_own_files
from ..hashing import file_sha256
from ..installation import install_command
from ..terminal import print_text
from .cache import CACHE_VARIABLE, EXPORT_NAMES, find_model, locked
from .catalog import SHORT_NAMES, TINY, PackagedModel
from .wheel import model_file

GGUF_SUFFIX = ".gguf"
SPARE_BYTES = 100 * 10**6  # beside the download and the converted model
NEEDED_PACKAGES = ("gguf", "torch", "transformers")
_HASH_LENGTH = 12  # hexadecimal digits of a file's hash in the name of its folder


def is_converted_here(model: str) -> bool:
    """Return whether a model is a short name or a GGUF file that `resolve_model` converts."""
    if Path(model).is_dir():
        return False
    return model.lower() in SHORT_NAMES or model.lower().endswith(GGUF_SUFFIX)


def resolve_folder(model: str | Path) -> Path:
    """Return the folder of a model that can be served; see `resolve_model`.

    Raises:
        OpsError: the model cannot be fetched or converted, or is made during a training.
    """
    if str(model).lower() == TINY and not Path(model).is_dir():
        raise OpsError(
            f"the model {TINY!r} is made from the training rows during a training",
            "Run `phi3 finetune --local --model tiny`, and give .phi3/model/base or .phi3/model/model.",
        )
    return resolve_model(model)


def resolve_model(model: str | Path) -> Path:
    """Return the folder of a model. The first use of a short name fetches and converts it.

    A folder, a hub id and `tiny` are returned unchanged.

    Args:
        model: short name of a packaged model, GGUF file, folder, or hub id.

    Raises:
        OpsError: the model cannot be fetched or converted.
    """
    text = str(model)
    if not is_converted_here(text):
        return Path(model)
    if packaged := SHORT_NAMES.get(text.lower()):
        return _resolve_packaged(text.lower(), packaged)
    return _resolve_file(Path(model))


def _resolve_packaged(name: str, model: PackagedModel) -> Path:
    with locked(name) as folder:
        if _is_ready(folder):
            return folder
        _require_packages()
        needed = 2 * model.file_bytes + model.converted_bytes + SPARE_BYTES
        free = shutil.disk_usage(folder.parent).free
        if free < needed:
            raise OpsError(
                f"{model.title} needs {needed / 10**6:,.0f} MB in {folder.parent}, and the disk has "
                f"{free / 10**6:,.0f} MB free",
                f"Delete something, or set {CACHE_VARIABLE} to a folder on another disk.",
            )
        with (
            _new_model(folder) as content,
            model_file(model, content / ".download") as file,
        ):
            names = ("--name", model.title, "--source", model.source)
            _convert(file, content, *names, "--sha256", model.sha256)
        return folder


def _resolve_file(file: Path) -> Path:
    digest = file_sha256(file)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip(".-") or "model"
    with locked(f"{stem}-{digest[:_HASH_LENGTH]}") as folder:
        if not _is_ready(folder):
            _require_packages()
            with _new_model(folder) as content:
                _convert(file, content, "--source", f"the file {file.name}", "--sha256", digest)
        return folder


def _is_ready(folder: Path) -> bool:
    model = find_model(folder)
    return model is not None and model.is_current


def _require_packages() -> None:
    """Raise OpsError if a package is missing that the conversion imports."""
    missing = [name for name in NEEDED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        what = f"converting a model needs the package {missing[0]}, which is not installed"
        raise OpsError(what, f"Run: {install_command('train')}")


@contextmanager
def _new_model(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes the model's folder if the block ends without an error."""
    remove_own_files(folder, re.compile(EXPORT_NAMES))  # of a model that is not current
    with new_folder(folder) as content:
        content.mkdir()
        yield content
        finish_writing(content, [path.name for path in content.iterdir()])


def _convert(file: Path, folder: Path, *options: str) -> None:
    """Convert a GGUF file in another process: the conversion imports large packages."""
    print_text(f"converting {file.name}", to_stderr=True)
    script = str(paths.TRAINING / "gguf_model.py")
    command = [sys.executable, script, str(file), str(folder), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        reason = done.stdout.strip() or f"the conversion ended with exit code {done.returncode}"
        raise OpsError(reason)
