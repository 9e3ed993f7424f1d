"""Exports a model for ONNX Runtime, once per content of the model's folder.

    python onnx_export.py MODEL_DIR TOKENIZER_DIR OUT fp32|int8|int4

`ensure_export` runs this command in a separate process, because the export needs torch and twice the
model's memory, and serving needs neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from export_cache import SERVING_SETTINGS, ExportError, exclusive_lock, find_folder, has_export
from model_files import TOKENIZER, WEIGHTS, ModelFiles
from onnx_graph import adapt_graph

log = logging.getLogger("phi3.score")
REQUIRED_PACKAGES = ("onnx", "onnx_ir", "onnxruntime", "onnxruntime_genai")
FORMAT = "3"  # raise it whenever `main` writes something else: earlier exports are then not used
# Weights of 8 and 4 bits are multiplied as integers (level 4). A shared matrix of float32 would be in
# memory twice, once transposed; separate ones leave the input matrix in the file, of which only the
# rows of the tokens that occur are read.
OPTIONS = {
    "fp32": ("shared_embeddings=false",),
    "int8": ("shared_embeddings=false", "block_size=64", "accuracy_level=4"),
    "int4": ("block_size=32", "accuracy_level=4"),
}
SETTINGS = ("config.json", "generation_config.json", "*.jinja", "special_tokens_map.json")


def ensure_export(files: ModelFiles, precision: str) -> Path:
    """Return the folder of the exported model, and export the model if there is no such folder.

    `export_cache.find_folder` says which folder the export is in.

    Args:
        files: the model.
        precision: fp32, int8 or int4.

    Raises:
        ExportError: the model cannot be exported.
    """
    missing = [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"these packages are not installed: {', '.join(missing)}"
        old_python = sys.version_info < (3, 11)
        hint = " (onnxruntime-genai needs Python 3.11 or later)" if old_python else ""
        raise ExportError(reason + hint)
    name = f"onnx-{precision}-{_digest(files)}"
    folder = find_folder(files.model, name)
    export = folder / name
    if has_export(export):
        return export
    with exclusive_lock(folder / f".{name}.lock"):
        if not has_export(export):  # another worker may have exported the model meanwhile
            _export(files, precision, export)
    return export


def _digest(files: ModelFiles) -> str:
    """Return a hash of everything that the content of an export depends on."""
    digest = hashlib.sha256()
    packages = ("onnxruntime-genai", "transformers")
    versions = [importlib.metadata.version(package) for package in packages]
    digest.update(repr((FORMAT, versions)).encode())
    patterns = [(files.model, (*WEIGHTS, *SETTINGS)), (files.tokenizer, (*TOKENIZER, *SETTINGS))]
    for folder, names in patterns:
        for file in sorted({file for name in names for file in folder.glob(name)}):
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            with open(file, "rb") as stream:
                while block := stream.read(2**22):
                    digest.update(block)
    return digest.hexdigest()[:16]


def _export(files: ModelFiles, precision: str, target: Path) -> None:
    """Export a model into a new folder, by running `main` in another process."""
    log.info(
        "exporting the model to ONNX (%s): this takes a while, but happens only once", precision
    )
    start = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        command = [sys.executable, __file__, files.model, files.tokenizer, work / "out", precision]
        env = {"ORT_DISABLE_TELEMETRY": "1", **os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
        done = subprocess.run(
            [str(word) for word in command], env=env, capture_output=True, text=True
        )
        if done.returncode:
            fallback = f"the export ended with exit code {done.returncode}"
            raise ExportError(_error_line(done.stderr) or fallback)
        with contextlib.suppress(OSError):  # another worker was faster
            (work / "out").rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not (target / SERVING_SETTINGS).is_file():
        raise ExportError(f"{target} cannot be written")
    log.info("exported the model to %s in %.0f s", target, time.monotonic() - start)


def _error_line(stderr: str) -> str:
    """Return the last line of the first traceback. Later tracebacks only report that it ended."""
    errors = [line for line in stderr.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return errors[0] if errors else stderr.strip().rpartition("\n")[2]


# --- the process that exports ----------------------------------------------------------------


def main(model_dir: str, tokenizer_dir: str, out: str, precision: str) -> None:
    """Write model.onnx, and everything that serving needs of the tokenizer and the settings."""
    from engine_transformers import load_tokenizer
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
    tokenizer = load_tokenizer(Path(tokenizer_dir))
    # Read first: the model may lack what it needs, and the export takes long.
    settings = _serving_settings(config, tokenizer, Path(model_dir))
    _build_graph(config, [Path(tokenizer_dir), Path(model_dir)], Path(out), precision)
    adapt_graph(Path(out) / "model.onnx", getattr(config, "sliding_window", None))
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    # transformers may read the tokenizer otherwise than the model's own file has it.
    tokenizer.backend_tokenizer.save(str(Path(out) / "tokenizer.json"))
    (Path(out) / SERVING_SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def _serving_settings(config: Any, tokenizer: Any, model_dir: Path) -> dict[str, Any]:
    """Return the content of serving.json, which `engine_onnx` reads."""
    from engine_transformers import find_end_tokens, find_pad_token, find_short_window
    from transformers import GenerationConfig

    configured = config.eos_token_id
    if (model_dir / "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(model_dir).eos_token_id
    end_tokens = find_end_tokens(tokenizer, configured)
    special_tokens = tokenizer.special_tokens_map.items()
    return {
        "context_window": config.max_position_embeddings,
        "short_window": find_short_window(config),
        "end_tokens": sorted(end_tokens),
        "pad_token": find_pad_token(tokenizer, end_tokens),
        "chat_template": tokenizer.get_chat_template(),
        "specials": {name: token for name, token in special_tokens if isinstance(token, str)},
    }


def _build_graph(config: Any, folders: list[Path], out: Path, precision: str) -> None:
    """Run onnxruntime-genai's exporter, which needs the model and the tokenizer in one folder."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as merged:
        _merge_folders(folders, Path(merged))
        _write_config(config, Path(merged) / "config.json")
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
        paths = ["-i", merged, "-o", str(out), "-c", cache]
        # Up to 0.14, the exporter runs code from the model's folder by default.
        options = ["--extra_options", "hf_remote=false", *OPTIONS[precision]]
        subprocess.run([*builder, "-p", precision, *paths, *options], check=True)


def _merge_folders(folders: list[Path], merged: Path) -> None:
    """Link the files of all folders into one, except code: the exporter could run it."""
    for folder in folders:
        for file in folder.iterdir():
            link = merged / file.name
            if file.is_file() and file.suffix != ".py" and not link.exists():
                link.symlink_to(file.resolve())


def _write_config(config: Any, path: Path) -> None:
    """Write the model's configuration for the exporter.

    It has the older name of LongRoPE's key, and does not refer to code in the model's folder.
    """
    settings = config.to_dict()
    settings.pop("auto_map", None)
    rope = settings.get("rope_parameters") or {}
    if "rope_type" in rope:
        settings["rope_parameters"] = {**rope, "type": rope["rope_type"]}
    path.unlink()
    path.write_text(json.dumps(settings), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
