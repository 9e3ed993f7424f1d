"""Convert a GGUF file into a folder with a Phi-3: float32 weights, tokenizer and chat template.

    python gguf_model.py --source "my own file" model.gguf folder

The architectures `llama` and `phi3` can be converted. The converted model computes exactly what the
original computes in float32. Progress goes to standard error.

Exit codes: 0; 1 after an error (one line on standard output says what is wrong, where, and what to do);
2 for a wrong command line; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_header import Fields, Header, open_file, read_header
from gguf_weights import check_tensors, list_weights, save_weights
from inputs import TrainError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedTokenizerBase

BASE_FILE = "phi3-base.json"  # says whose weights these are; the model card reads it
CONVERSION = 1  # version of what this script writes; `phi3` converts older models again
SPARE_BYTES = 50 * 10**6  # for the tokenizer, and for what others write meanwhile
REPORT_EVERY_S = 5.0
# Tokens that end a turn in the templates of Phi-3, ChatML and Llama 3.
END_OF_TURN = ("<|end|>", "<|im_end|>", "<|eot_id|>")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parse(arguments)
    # Nothing is looked up on the hub, and its libraries print nothing.
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"})
    try:
        convert(
            options.file,
            options.folder,
            name=options.name,
            source=options.source,
            sha256=options.sha256,
        )
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if options.verbose:
            traceback.print_exc()
        print(_error_line(error, options.file), flush=True)
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=(__doc__ or "").split("\n", 1)[0], prog="gguf_model.py"
    )
    parser.add_argument("file", type=Path, help="GGUF file of an instruct model")
    parser.add_argument(
        "folder", type=Path, help="folder to write to; it must be empty or not exist"
    )
    parser.add_argument("--name", help="name of the model, in place of the file's")
    parser.add_argument(
        "--source", default="a GGUF file", help="where the file comes from, as text"
    )
    parser.add_argument("--sha256", help="SHA-256 of the file, for the model card")
    parser.add_argument("--verbose", action="store_true", help="print tracebacks")
    return parser.parse_args(arguments)


def _error_line(error: Exception, path: Path) -> str:
    if isinstance(error, TrainError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot convert {path}: {error.strerror}"
    text = " ".join(str(error).split())
    return f"cannot convert {path}: {type(error).__name__}: {text} (--verbose shows where)"


def convert(
    path: Path, folder: Path, *, name: str | None = None, source: str, sha256: str | None = None
) -> None:
    """Convert a GGUF file.

    Args:
        path: GGUF file.
        folder: folder to write to; it is created.
        name: name of the model; None takes the one in the file.
        source: where the file comes from, for the model card.
        sha256: SHA-256 of the file, for the model card.

    Raises:
        TrainError: the file cannot be converted, or the disk is too small.
        OSError: the folder cannot be written.
    """
    reader = open_file(path)
    header = read_header(reader, path)
    weights = list_weights(header)
    check_tensors(reader, weights, path)
    folder.mkdir(parents=True, exist_ok=True)
    weights_bytes = sum(weight.bytes for weight in weights)
    _check_space(folder, weights_bytes)

    from gguf_tokenizer import make_tokenizer

    tokenizer = make_tokenizer(Fields(reader, path), header.context)
    tokenizer.save_pretrained(folder)
    _save_configs(header, tokenizer, folder)
    save_weights(reader, weights, folder, path, Progress())
    base = {
        "conversion": CONVERSION,
        "name": name or header.name or path.stem,
        "source": source,
        "file": path.name,
        "sha256": sha256,
        "licence": header.licence,
        "changes": list_changes(header, reader, tokenizer),
    }
    text = json.dumps(base, indent=2, ensure_ascii=False) + "\n"
    (folder / BASE_FILE).write_text(text, encoding="utf-8")


def _check_space(folder: Path, weights_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < weights_bytes + SPARE_BYTES:
        problem = (
            f"the converted model needs {_megabytes(weights_bytes + SPARE_BYTES)}, and the disk has "
            f"{_megabytes(free)} free"
        )
        raise TrainError(problem, folder, "delete something, or use another disk")


def _megabytes(size: int) -> str:
    return f"{size / 10**6:,.0f} MB"


class Progress:
    """Prints how much is converted and the time left, on standard error every few seconds."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._next_s = self._started + REPORT_EVERY_S

    def __call__(self, written: int, all_bytes: int) -> None:
        """Print the progress if some seconds have passed since the last line."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + REPORT_EVERY_S
            seconds = time.monotonic() - self._started
            left = f"{seconds * (all_bytes - written) / max(written, 1):.0f} s left"
            line = f"converted {_megabytes(written)} of {_megabytes(all_bytes)}, {left}"
            print(line, file=sys.stderr, flush=True)


def _save_configs(header: Header, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write config.json and generation_config.json."""
    from transformers import GenerationConfig, Phi3Config

    special = {
        "bos_token_id": header.tokens.get("bos"),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    settings: dict[str, Any] = {}
    if header.head_width != header.hidden // header.heads:
        settings["head_dim"] = header.head_width
    config = Phi3Config(
        vocab_size=header.vocabulary,
        hidden_size=header.hidden,
        intermediate_size=header.intermediate,
        num_hidden_layers=header.layers,
        num_attention_heads=header.heads,
        num_key_value_heads=header.key_value_heads,
        rms_norm_eps=header.epsilon,
        max_position_embeddings=header.context,
        original_max_position_embeddings=header.original_context,
        sliding_window=header.sliding_window,
        rope_parameters=header.rope,
        tie_word_embeddings=header.tied,
        architectures=["Phi3ForCausalLM"],
        dtype="float32",
        **special,
        **settings,
    )
    config.save_pretrained(folder)
    ends = _end_tokens(header, tokenizer)
    special["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    GenerationConfig(**special).save_pretrained(folder)


def _end_tokens(header: Header, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of the tokens that end an answer."""
    vocabulary = tokenizer.get_vocab()
    marks = (vocabulary.get(mark) for mark in END_OF_TURN)
    ids = (tokenizer.eos_token_id, header.tokens.get("eot"), *marks)
    return list(dict.fromkeys(token for token in ids if token is not None))


def list_changes(
    header: Header, reader: GGUFReader, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """Return what the conversion changed, as sentences for the model card."""
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    kinds = [kind for kind, _ in sizes.most_common() if kind != "F32"]
    changes = []
    if kinds:
        changes.append(f"Its weights were converted from {', '.join(kinds)} to float32.")
    if header.architecture == "llama":
        changes.append(
            "Its architecture, Llama, was written as Phi-3's: the projections of the queries, keys and "
            "values are one matrix, and so are those of the gate and the input of the feed-forward "
            "layers. The model computes exactly the same."
        )
    if "{% generation %}" in str(tokenizer.chat_template):
        changes.append("Its chat template got marks around the answers; it renders the same text.")
    return changes


if __name__ == "__main__":
    sys.exit(main())
