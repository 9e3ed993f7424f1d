"""Export a model for ONNX Runtime, once: kept by the hash of what it was made from.

    python onnx_export.py MODEL_DIR TOKENIZER_DIR OUT fp32|int4

`exported` runs this in a process of its own: it needs torch and twice the model's memory, and
serving needs neither.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_files import TOKENIZER, WEIGHTS, ModelFiles

log = logging.getLogger("phi3.score")
PRECISIONS = ("fp32", "int4")
NEEDS = ("onnx", "onnx_ir", "onnxruntime", "onnxruntime_genai")
FORMAT = "2"  # raise it when what `main` writes changes
SETTINGS = ("config.json", "generation_config.json", "*.jinja", "special_tokens_map.json")


class ExportError(Exception):
    """The model could not be exported; the message says why, in one line."""


def exported(files: ModelFiles, precision: str) -> Path:
    """The exported model: beside the model, or in PHI3_ONNX_CACHE, made unless it is there.

    A folder that cannot be written to (as on Azure) makes it the system's temporary folder.
    Raises ExportError.
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"not installed: {', '.join(missing)}")
    name = f"onnx-{precision}-{_digest(files)}"
    for home in _homes(files):
        if (home / name / "serving.json").is_file():
            return home / name
    home = next((home for home in _homes(files) if _writable(home)), None)
    if home is None:
        raise ExportError("no folder to export the model to: set PHI3_ONNX_CACHE")
    with _only_one(home / f".{name}.lock"):
        if not (home / name).is_dir():
            _export(files, precision, home / name)
    return home / name


def _homes(files: ModelFiles) -> list[Path]:
    given = os.environ.get("PHI3_ONNX_CACHE")
    if given:
        return [Path(given)]
    return [files.model, Path(tempfile.gettempdir()) / "phi3-onnx"]


def _writable(home: Path) -> bool:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return True
    except OSError:
        return False


def _digest(files: ModelFiles) -> str:
    """Of all that decides what the export holds."""
    digest = hashlib.sha256()
    versions = [importlib.metadata.version(p) for p in ("onnxruntime-genai", "transformers")]
    digest.update(repr((FORMAT, versions)).encode())
    patterns = [(files.model, (*WEIGHTS, *SETTINGS)), (files.tokenizer, (*TOKENIZER, *SETTINGS))]
    for folder, names in patterns:
        for file in sorted({file for name in names for file in folder.glob(name)}):
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            with open(file, "rb") as stream:
                while block := stream.read(2**22):
                    digest.update(block)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Two workers that start together export once; where files cannot be locked, the first wins."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _export(files: ModelFiles, precision: str, target: Path) -> None:
    log.info("exporting the model to ONNX (%s): this takes a while, once", precision)
    start = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        command = [sys.executable, __file__, files.model, files.tokenizer, work / "out", precision]
        env = {"ORT_DISABLE_TELEMETRY": "1", **os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
        done = subprocess.run(
            [str(word) for word in command], env=env, capture_output=True, text=True
        )
        if done.returncode:
            raise ExportError(_reason(done.stderr) or f"it ended with {done.returncode}")
        with contextlib.suppress(OSError):  # somebody else was first
            (work / "out").rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not (target / "serving.json").is_file():
        raise ExportError(f"{target} could not be written")
    log.info("exported to %s in %.0f s", target, time.monotonic() - start)


def _reason(stderr: str) -> str:
    """The last line of the first traceback: later ones only say that it was raised."""
    errors = [line for line in stderr.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return errors[0] if errors else stderr.strip().rpartition("\n")[2]


def main(model_dir: str, tokenizer_dir: str, out: str, precision: str) -> None:
    """Write model.onnx and, beside it, all that serving needs of the tokenizer."""
    from engine_transformers import find_end_tokens, load_tokenizer, short_window
    from transformers import AutoConfig, GenerationConfig

    config: Any = AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
    tokenizer = load_tokenizer(Path(tokenizer_dir))
    configured = config.eos_token_id
    if (Path(model_dir) / "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(model_dir).eos_token_id
    end_tokens = find_end_tokens(tokenizer, configured)
    pad = tokenizer.pad_token_id
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as together:
        for folder in (tokenizer_dir, model_dir):  # the exporter wants them in one
            for file in Path(folder).iterdir():
                if file.is_file() and not (Path(together) / file.name).exists():
                    (Path(together) / file.name).symlink_to(file.resolve())
        _write_config(config, Path(together) / "config.json")
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
        paths = ["-i", together, "-o", out, "-c", cache]
        subprocess.run([*builder, "-p", precision, *paths], check=True)
    _set_window(Path(out) / "model.onnx", getattr(config, "sliding_window", None))
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    # As transformers reads it, which is not always what is in the model's own file.
    tokenizer.backend_tokenizer.save(str(Path(out) / "tokenizer.json"))
    about = {
        "context_window": config.max_position_embeddings,
        "short_window": short_window(config),
        "end_tokens": sorted(end_tokens),
        "pad_token": min(end_tokens) if pad is None else pad,
        "chat_template": tokenizer.chat_template,
        "specials": {k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)},
    }
    (Path(out) / "serving.json").write_text(json.dumps(about), encoding="utf-8")


def _write_config(config: Any, path: Path) -> None:
    """The model's configuration, with LongRoPE's older key, which the exporter looks for."""
    settings = config.to_dict()
    rope = settings.get("rope_parameters") or {}
    if "rope_type" in rope:
        settings["rope_parameters"] = {**rope, "type": rope["rope_type"]}
    path.unlink()
    path.write_text(json.dumps(settings), encoding="utf-8")


def _set_window(path: Path, window: int | None) -> None:
    """Give attention its sliding window (Phi-3-mini-4k's is 2047), which the exporter leaves out."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    nodes = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    if not nodes:
        raise ValueError("the exporter chose an attention that cannot be batched in place")
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "local_window_size":
                attribute.i = window or -1
    onnx.save(model, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
