"""The folder with an ONNX model that ONNX Runtime GenAI and Foundry Local take.

Contracts: "Generate models using Model Builder" of ONNX Runtime GenAI, and "Compile Hugging Face models
to run on Foundry Local" of Microsoft Learn (inference_model.json).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import OpsError
from ..files import write_json
from ..installation import install_command
from .chat_pieces import ASSISTANT, SYSTEM, USER, ChatPieces, plain_template
from .source import SourceModel

TITLE = "Foundry Local"
INFERENCE_FILE = "inference_model.json"
ONNX_FILES = ("model.onnx", "model.onnx.data", "genai_config.json")
_BUILDER = "onnxruntime_genai.models.builder"
_PACKAGES = ("onnxruntime_genai", "onnx_ir", "torch")
LONGEST_MESSAGE = 300


def write_onnx(source: SourceModel, folder: Path, precision: str) -> None:
    """Write the ONNX model, its configuration and its tokenizer for a CPU.

    Args:
        source: the model.
        folder: the folder, which exists.
        precision: `int4` or `fp32`.

    Raises:
        OpsError: a package is missing, or the conversion failed.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            what = f"an ONNX export needs the package {package}, which is not installed"
            raise OpsError(what, f"Run: {install_command('take-home-onnx')}")
    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        command = [sys.executable, "-m", _BUILDER, "-i", str(source.folder.resolve())]
        command += ["-o", str(folder), "-p", precision, "-e", "cpu", "-c", cache]
        done = subprocess.run(
            command,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    missing = [name for name in ONNX_FILES[::2] if not (folder / name).is_file()]
    if done.returncode or missing:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        message = (lines or [f"exit code {done.returncode}"])[-1][:LONGEST_MESSAGE]
        raise OpsError(f"ONNX Runtime GenAI cannot convert {source.folder}: {message}")
    _write_plain_template(source, folder)


def _write_plain_template(source: SourceModel, folder: Path) -> None:
    """Replace the chat template by one without marks around the answers."""
    template = plain_template(source.tokenizer.chat_template)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    if "chat_template" in settings:
        write_json(config, {**settings, "chat_template": template})


def write_inference_file(folder: Path, name: str, pieces: ChatPieces) -> None:
    """Write the file by which Foundry Local finds a model, and learns how to write a chat.

    Args:
        folder: folder of the ONNX model.
        name: name of the model in Foundry Local.
        pieces: chat template of the model.
    """
    texts = {
        role: pieces.pieces[role].around("{Content}").rstrip("\n")
        for role in (SYSTEM, USER, ASSISTANT)
    }
    prompt = pieces.pieces[USER].around("{Content}") + pieces.answer_start
    template = {**texts, "prompt": prompt.rstrip("\n")}
    write_json(folder / INFERENCE_FILE, {"Name": name, "PromptTemplate": template})
