"""Files of a flow: its YAML, and the folder in which its nodes run."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .errors import FlowError
from .yaml12 import YamlError, parse_yaml

_folder: ContextVar[Path | None] = ContextVar("phi3_flow_folder", default=None)


def current_flow_folder() -> Path | None:
    """Return the folder of the flow whose tool runs in this context, or None."""
    return _folder.get()


def in_flow_folder(function: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """Return a function that runs with a folder as `current_flow_folder`."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        token = _folder.set(folder)
        try:
            return function(*args, **kwargs)
        finally:
            _folder.reset(token)

    return run


def read_flow_file(file: Path) -> dict[str, Any]:
    """Return the content of a flow.dag.yaml.

    Raises:
        FlowError: the file does not exist, or is not a YAML mapping.
    """
    try:
        content = parse_yaml(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        fix = "give a folder with a flow.dag.yaml"
        raise FlowError(f"{file} does not exist", fix, code="FileNotFoundError") from None
    except (OSError, UnicodeDecodeError, YamlError) as error:
        raise FlowError(f"{file} cannot be read: {error}", "correct the file") from error
    if not isinstance(content, dict):
        raise FlowError(f"{file} is not a mapping", "write `inputs`, `outputs` and `nodes`")
    return content


def flow_folder(file: Path, content: Mapping[str, Any]) -> Path:
    """Return the folder in which the nodes' files are.

    With `additional_includes` it is a temporary copy of the flow's folder, with the included files and
    folders in it, as promptflow makes it. It is deleted when the process ends.

    Raises:
        FlowError: an included file does not exist.
    """
    folder = file.resolve().parent
    includes = content.get("additional_includes") or []
    if not includes:
        return folder
    sources = [folder / str(item) for item in includes]
    for source in sources:
        if not source.exists():
            fix = "correct the path, which is relative to the flow's folder"
            raise FlowError(f"{source} does not exist", fix, field="additional_includes")
    copy = Path(tempfile.mkdtemp(prefix="phi3-flow-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, copy / source.resolve().name, dirs_exist_ok=True)
        else:
            shutil.copy2(source, copy / source.name)
    return copy
