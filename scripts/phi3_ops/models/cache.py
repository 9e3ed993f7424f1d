"""The cache of converted models: one folder per model, which several projects share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import OpsError
from ..files import file_lock, load_json_object, private_folder, read_marker, remove_own_files
from ..terminal import print_text

CACHE_VARIABLE = "PHI3_CACHE"
BASE_FILE = "phi3-base.json"  # gguf_model.py writes it: whose weights these are
CONVERSION = 1  # version of what gguf_model.py writes
# Folders that the scoring script writes into a model's folder.
EXPORT_NAMES = r"\.?openvino-[a-z0-9]+-[0-9a-f]{16}.*"
CONVERSION_S = 3600.0  # maximum time to wait for another process that converts the same model
_OWN_FOLDER = f"Set {CACHE_VARIABLE} to a folder of your own."


@dataclass(frozen=True)
class CachedModel:
    """A converted model.

    Attributes:
        name: name of its folder.
        folder: its folder.
        title: name of the model for people.
        source: where its weights come from.
        licence: identifier of its licence, or None if it is unknown.
        size: bytes of all files, exports for serving included.
        is_current: whether this version of the product would convert it in the same way.
    """

    name: str
    folder: Path
    title: str
    source: str
    licence: str | None
    size: int
    is_current: bool


def cache_folder() -> Path:
    """Return the folder of the converted models. It is created, for this user only.

    It is `models` in PHI3_CACHE if that is set, and otherwise in `phi3` in the user's cache folder:
    XDG_CACHE_HOME, or ~/.cache (on Windows LOCALAPPDATA).

    Raises:
        OpsError: the folder cannot be created, or other users can open it.
    """
    return private_folder(_cache_root() / "models", _OWN_FOLDER)


def _cache_root() -> Path:
    if setting := os.environ.get(CACHE_VARIABLE):
        return Path(setting).expanduser().absolute()
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    setting = os.environ.get(variable, "")
    # XDG's specification: a relative path is ignored.
    root = Path(setting) if Path(setting).is_absolute() else Path.home() / ".cache"
    return root / "phi3"


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """Hold the lock of a model inside the block, and yield the path of its folder.

    Raises:
        OpsError: the lock cannot be written, or another process held it for too long.
    """
    cache = cache_folder()
    lock = cache / f".{name}.lock"
    with ExitStack() as stack:
        try:
            _enter_lock(stack, lock, name)
        except TimeoutError as error:
            raise OpsError(f"another process still prepares {name}", "Try again later.") from error
        except OSError as error:
            raise OpsError(f"cannot lock {lock}: {error.strerror}", _OWN_FOLDER) from error
        yield cache / name


def _enter_lock(stack: ExitStack, lock: Path, name: str) -> None:
    try:
        stack.enter_context(file_lock(lock, 0))
    except TimeoutError:
        print_text(f"waiting for another process that prepares {name}", to_stderr=True)
        stack.enter_context(file_lock(lock, CONVERSION_S))


def find_model(folder: Path) -> CachedModel | None:
    """Return the converted model in a folder, or None if the folder is not one that this room made."""
    if read_marker(folder) is None:
        return None
    try:
        base = load_json_object(folder / BASE_FILE)
        title, source, licence = str(base["name"]), str(base["source"]), base["licence"]
        is_current = base["conversion"] == CONVERSION
    except (OSError, ValueError, KeyError):
        return None
    size = sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
    return CachedModel(folder.name, folder, title, source, licence, size, is_current)


def list_models() -> list[CachedModel]:
    """Return the models in the cache, by name.

    Raises:
        OpsError: the cache cannot be used.
    """
    models = (find_model(folder) for folder in sorted(cache_folder().iterdir()))
    return [model for model in models if model]


def remove_model(name: str) -> list[Path]:
    """Remove a model from the cache, together with its exports for serving.

    Returns:
        The files that stay, because this product did not write them.

    Raises:
        OpsError: the cache does not contain the model.
    """
    names = [model.name for model in list_models()]
    if name not in names:
        fix = f"It contains {', '.join(names)}." if names else "It is empty."
        raise OpsError(f"the cache contains no model {name!r}", fix)
    with locked(name) as folder:
        return remove_own_files(folder, re.compile(EXPORT_NAMES))
