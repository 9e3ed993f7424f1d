"""Exports a model for OpenVINO, once per content of the model's folder.

    python openvino_export.py MODEL_DIR TOKENIZER_DIR OUT fp32|fp16|int8|int4

`ensure_export` runs this command in a separate process, because the export needs torch and the model's
memory, and serving needs neither.
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

import numpy as np
from architecture import EMBEDDINGS, HEAD, Architecture
from architecture import WEIGHTS as WEIGHTS_FOLDER
from export_cache import SERVING_SETTINGS, ExportError, exclusive_lock, find_folder, has_export
from model_files import TOKENIZER, WEIGHTS, ModelFiles
from quantization import quantize

log = logging.getLogger("phi3.score")
REQUIRED_PACKAGES = ("openvino",)
FORMAT = "7"  # raise it whenever `main` writes something else: earlier exports are then not used
# Bits and group size of the layers' matrices. With fewer bits, the embeddings and the output matrix
# have 8 bits and one group per row.
QUANTIZATION = {"int8": (8, 64), "int4": (4, 32)}
SETTINGS = ("config.json", "generation_config.json", "*.jinja", "special_tokens_map.json")


def ensure_export(files: ModelFiles, precision: str) -> Path:
    """Return the folder of the exported model, and export the model if there is no such folder.

    `export_cache.find_folder` says which folder the export is in.

    Args:
        files: the model.
        precision: fp32, fp16, int8 or int4.

    Raises:
        ExportError: the model cannot be exported.
    """
    missing = [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"these packages are not installed: {', '.join(missing)}")
    name = f"openvino-{precision}-{_digest(files)}"
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
    digest.update(repr((FORMAT, importlib.metadata.version("transformers"))).encode())
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
        "exporting the model to OpenVINO (%s): this takes a while, but happens only once", precision
    )
    start = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        command = [sys.executable, __file__, files.model, files.tokenizer, work / "out", precision]
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
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
    """Write the weights, and everything that serving needs of the tokenizer and the settings."""
    from engine_transformers import load_tokenizer
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
    if config.model_type != "phi3":
        raise ValueError(f"the model's type is {config.model_type}, not phi3")
    tokenizer = load_tokenizer(Path(tokenizer_dir))
    # Read first: the model may lack what it needs, and the export takes long.
    settings = _serving_settings(config, tokenizer, Path(model_dir))
    settings["precision"] = precision
    architecture = describe_architecture(config)
    (Path(out) / WEIGHTS_FOLDER).mkdir(parents=True)
    _write_weights(model_dir, Path(out) / WEIGHTS_FOLDER, precision)
    architecture.write(Path(out))
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    # transformers may read the tokenizer otherwise than the model's own file has it.
    tokenizer.backend_tokenizer.save(str(Path(out) / "tokenizer.json"))
    (Path(out) / SERVING_SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def describe_architecture(config: Any) -> Architecture:
    """Return the sizes of a Phi-3, and its rotary frequencies as transformers computes them."""
    from engine_transformers import find_short_window
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

    heads = config.num_attention_heads
    rotary: Any = Phi3RotaryEmbedding(config)
    long_frequencies: Any = []
    if short_window := find_short_window(config):
        init: Any = ROPE_INIT_FUNCTIONS[rotary.rope_type]
        long_frequencies, _ = init(config, "cpu", seq_len=short_window + 1)
    return Architecture(
        layers=config.num_hidden_layers,
        heads=heads,
        key_value_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate_size=config.intermediate_size,
        epsilon=config.rms_norm_eps,
        sliding_window=config.sliding_window or 0,
        vocabulary_size=config.vocab_size,
        rotation_scale=float(rotary.attention_scaling),
        frequencies=[float(value) for value in rotary.inv_freq],
        long_frequencies=[float(value) for value in long_frequencies],
    )


def _write_weights(model_dir: str, folder: Path, precision: str) -> None:
    """Write each tensor of the model to a file, one after the other."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    model = loader.from_pretrained(
        model_dir, dtype="auto", local_files_only=True, trust_remote_code=False
    )
    for name, tensor in model.state_dict().items():
        name = name.removesuffix(".weight")
        if name == HEAD and model.config.tie_word_embeddings:
            continue
        weights = tensor.float().numpy()
        prefix, _, last = name.rpartition(".")
        if last == "gate_up_proj":  # the products of two matrices need no copies
            for part, half in zip(("gate", "up"), np.split(weights, 2)):
                _write_matrix(folder, f"{prefix}.{part}_proj", half, precision)
        elif weights.ndim == 1:
            np.save(folder / f"{name}.npy", weights)
        else:
            _write_matrix(folder, name, weights, precision)


def _write_matrix(folder: Path, name: str, weights: np.ndarray, precision: str) -> None:
    if precision == "fp32":
        np.save(folder / f"{name}.npy", weights)
    elif precision == "fp16":
        np.save(folder / f"{name}.npy", _to_float16(name, weights))
    elif name in (EMBEDDINGS, HEAD):
        quantize(weights, 8, weights.shape[1]).write(folder, name)
    else:
        quantize(weights, *QUANTIZATION[precision]).write(folder, name)


def _to_float16(name: str, weights: np.ndarray) -> np.ndarray:
    """Return a matrix in float16, which Phi-3's weights fit into."""
    with np.errstate(over="ignore"):
        rounded = weights.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise ValueError(f"{name} has values that float16 cannot hold: use another precision")
    return rounded


def _serving_settings(config: Any, tokenizer: Any, model_dir: Path) -> dict[str, Any]:
    """Return the content of serving.json, which `engine_openvino` reads."""
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


if __name__ == "__main__":
    main(*sys.argv[1:])
