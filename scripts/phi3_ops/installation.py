"""The command that installs further packages for this product."""

from __future__ import annotations

import shlex
from importlib import metadata

from .paths import ROOT

PACKAGE = "phi3-promptflow"
# Modules of other packages, by the extra that brings them.
_MODULES = {
    "local": "argcomplete fastapi jinja2 keyring markdown_it orjson packaging psutil pydantic rich "
    "uvicorn yaml",
    "promptflow": "promptflow",
    "agent-framework": "agent_framework",
    "azure": "azure promptflow.azure",
    "data": "datasets huggingface_hub pyarrow tokenizers",
    "train": "accelerate gguf matplotlib mlflow peft torch transformers trl",
    "serve": "openvino",
    "take-home": "xllamacpp",
    "take-home-onnx": "onnx_ir onnxruntime onnxruntime_genai",
    "eval": "numpy rouge_score sacrebleu",
    "schemas": "jsonschema_rs",
    "documents": "bs4 docx pypdf",
}
_EXTRAS = {name: extra for extra, names in _MODULES.items() for name in names.split()}


def install_command(*extras: str) -> str:
    """Return the pip command that adds extras to this installation.

    The command names the clone or the wheel file that this product was installed from. It never names the
    package alone, because pip looks such a name up in the package index, where anybody can register it.

    Args:
        extras: names of extras in pyproject.toml, for example `eval`.
    """
    names = f"[{','.join(extras)}]"
    if (ROOT / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{ROOT}{names}')}"
    return f"pip install {shlex.quote(f'./{wheel_name()}{names}')}"


def extra_of_module(module: str) -> str | None:
    """Return the extra in pyproject.toml that brings a module, or None if none is known to.

    Args:
        module: name of the module as in an import statement.
    """
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((_EXTRAS[name] for name in names if name in _EXTRAS), None)


def wheel_name() -> str:
    """Return the file name of this product's wheel in the installed version."""
    return f"{PACKAGE.replace('-', '_')}-{metadata.version(PACKAGE)}-py3-none-any.whl"
