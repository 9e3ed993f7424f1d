"""Make the tokenizer of a GGUF file, with marks in its chat template."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gguf_header import UNSUPPORTED_FIX, Fields
from inputs import TrainError
from templates import mark_answers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Values of `tokenizer.ggml.pre` that transformers reads as llama.cpp does, and SmolLM's.
SMOLLM = "smollm"
KNOWN_SPLITS = {
    "default", "gpt-2", "llama3", "llama-v3", "llama-bpe", "dbrx", "smaug-bpe", "qwen2", "gpt-4o",
    "tekken", SMOLLM,
}  # fmt: skip
SENTENCEPIECE, BYTE_LEVEL = "llama", "gpt2"  # values of `tokenizer.ggml.model`
# No field says whether white space after a control token belongs to it. llama.cpp's `llama-vocab.cpp`
# decides by these parts of `general.name`, and excepts these tokens.
NAMES_WITH_SPACES = ("phi-3", "phi3")
WITHOUT_SPACES = ("<unk>", "<s>", "<|endoftext|>")


def make_tokenizer(fields: Fields, context: int) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file.

    Args:
        fields: fields of the file.
        context: length of the context window in tokens.

    Raises:
        TrainError: the tokenizer is of an unknown kind, or has no chat template.
    """
    from transformers import AutoTokenizer

    _check(fields)
    with _alone(fields.path) as path:
        tokenizer = AutoTokenizer.from_pretrained(
            path.parent,
            gguf_file=path.name,
            trust_remote_code=False,
            local_files_only=True,
            model_max_length=context,
            # For generation, the ends of the prompts must be aligned. Training has its own padding.
            padding_side="left",
            clean_up_tokenization_spaces=False,
        )
    if fields.get("tokenizer.ggml.pre") == SMOLLM:
        _split_digits(tokenizer)
    name = str(fields.get("general.name", "")).lower()
    if any(part in name for part in NAMES_WITH_SPACES):
        _add_spaces_to_control_tokens(tokenizer)
    tokenizer.chat_template = mark_answers(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """Yield a path of the file in a folder without other files, which transformers would read as well."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "model.gguf"
        link.symlink_to(path.resolve())
        yield link


def _check(fields: Fields) -> None:
    if fields.get("tokenizer.ggml.model") not in (SENTENCEPIECE, BYTE_LEVEL):
        fields.refuse("tokenizer.ggml.model")
    is_byte_level = fields.get("tokenizer.ggml.model") == BYTE_LEVEL
    if is_byte_level and fields.get("tokenizer.ggml.pre", "default") not in KNOWN_SPLITS:
        fields.refuse("tokenizer.ggml.pre")
    if not isinstance(fields.get("tokenizer.chat_template"), str):
        problem = "the field tokenizer.chat_template is missing"
        raise TrainError(problem, fields.path, f"use an instruct model; {UNSUPPORTED_FIX}")


def _add_spaces_to_control_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let white space after a control token belong to it, as in Phi-3 and Phi-3.5."""
    from tokenizers import Tokenizer

    document = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in document["added_tokens"]:
        token["rstrip"] = token["content"] not in WITHOUT_SPACES
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(document))


def _split_digits(tokenizer: PreTrainedTokenizerBase) -> None:
    r"""Split before and after each digit first, as SmolLM's own tokenizer does.

    transformers reads `smollm` as GPT-2's splits, so that "\n\n1" would become other tokens than
    those that the model was trained with.
    """
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
