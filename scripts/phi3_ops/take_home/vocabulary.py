"""The tokenizer of a model, as the vocabulary of a GGUF file.

Sources: "GGUF" of ggml's documentation (names of the fields), and llama.cpp's `llama-vocab.cpp` (what it
does with them).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import OpsError
from .source import SourceModel
from .weights import DAMAGED_FIX

SENTENCEPIECE, BYTE_LEVEL = "llama", "gpt2"  # values of `tokenizer.ggml.model`
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of tokens
ADDED_SCORE, UNUSED_SCORE = -1000.0, -10_000.0
PADDING = "[PAD{}]"  # a row of the embedding without a token
SPACE = "▁"  # in SentencePiece's tokens
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How a byte-level tokenizer splits a text -> llama.cpp's name of it.
_SPLITS = {_WORDS % "{1,3}": "dbrx", _WORDS % "": "qwen2", _O200K: "gpt-4o"}
_LLAMA3 = "llama-bpe"  # splits like "dbrx", but a word that is a token is not split further
UNSUPPORTED_FIX = "llama.cpp has no equivalent; export it to onnx instead."


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model, in the order of their ids.

    Attributes:
        model: `SENTENCEPIECE` or `BYTE_LEVEL`.
        pre: llama.cpp's name of the first split of a text.
        tokens: the tokens.
        types: type of each token.
        scores: score of each token for SentencePiece: the highest is merged first.
        merges: merges of a byte-level tokenizer, in their order.
        adds_space: whether a space is added before a text.
        strips_right: whether spaces after a special token are dropped.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str]
    adds_space: bool
    strips_right: bool


def make_vocabulary(source: SourceModel) -> Vocabulary:
    """Return the vocabulary of a model.

    Raises:
        OpsError: llama.cpp cannot tokenize as this tokenizer does, or the model is damaged.
    """
    document = json.loads(source.tokenizer.backend_tokenizer.to_str())
    model = document["model"]
    if model["type"] != "BPE":
        raise OpsError(f"the tokenizer of {source.folder} is a {model['type']}", UNSUPPORTED_FIX)
    is_sentencepiece = bool(model.get("byte_fallback"))
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    added = {entry["id"]: entry for entry in document["added_tokens"]}
    rows = source.weights.shape("model.embed_tokens.weight")[0]
    if rows != source.config.vocab_size:
        what = f"{source.folder} has an embedding of {rows:,} rows, and config.json names"
        raise OpsError(f"{what} a vocab_size of {source.config.vocab_size:,}", DAMAGED_FIX)
    ids = {**model["vocab"], **{entry["content"]: i for i, entry in added.items()}}
    if max(ids.values()) >= rows:
        what = f"the tokenizer of {source.folder} has more tokens than the model's {rows:,} rows"
        raise OpsError(what, "Use the tokenizer that the model was trained with.")
    tokens = [PADDING.format(i) for i in range(rows)]
    types, scores = [UNUSED] * rows, [UNUSED_SCORE] * rows
    ranks = _ranks(merges)
    for token, i in ids.items():
        tokens[i], types[i] = token, _type(token, added.get(i), model.get("unk_token"))
        scores[i] = ADDED_SCORE if i in added else -float(ranks.get(token, 0))
        if types[i] == BYTE and not is_sentencepiece:
            types[i] = NORMAL
    return Vocabulary(
        model=SENTENCEPIECE if is_sentencepiece else BYTE_LEVEL,
        pre="default" if is_sentencepiece else _split_name(document, source),
        tokens=tokens,
        types=types,
        scores=scores if is_sentencepiece else [],
        merges=[] if is_sentencepiece else [" ".join(merge) for merge in merges],
        adds_space=is_sentencepiece and _adds_space(source),
        strips_right=any(entry["rstrip"] for entry in added.values()),
    )


def _ranks(merges: list[Any]) -> dict[str, int]:
    """Return the rank of each token: SentencePiece merges the pair whose token has the lowest."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges, 1):
        ranks.setdefault(left + right, rank)
    return ranks


def _type(token: str, added: Mapping[str, Any] | None, unknown: str | None) -> int:
    if token == unknown:
        return UNKNOWN
    if added is not None:
        return CONTROL if added["special"] else USER_DEFINED
    is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return BYTE if is_byte else NORMAL


def _adds_space(source: SourceModel) -> bool:
    """Return whether the tokenizer adds a space to a text after a special token."""
    tokenizer = source.tokenizer
    ids = tokenizer.encode(f"{tokenizer.eos_token}x", add_special_tokens=False)
    return bool(tokenizer.convert_ids_to_tokens(ids)[1].startswith(SPACE))


def _split_name(document: Mapping[str, Any], source: SourceModel) -> str:
    """Return llama.cpp's name of how a byte-level tokenizer splits a text.

    Raises:
        OpsError: llama.cpp does not know it.
    """
    pre = document["pre_tokenizer"] or {}
    steps = pre.get("pretokenizers", [pre])
    kinds = [step.get("type") for step in steps]
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"]:
        name = _SPLITS.get(steps[0]["pattern"].get("Regex", ""))
        if name == "dbrx" and document["model"].get("ignore_merges"):
            return _LLAMA3
        if name:
            return name
    what = f"the tokenizer of {source.folder} splits a text in an unknown way"
    raise OpsError(what, UNSUPPORTED_FIX)
