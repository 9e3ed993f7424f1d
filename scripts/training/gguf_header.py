"""Read the header of a GGUF file as the settings of a Phi-3, and refuse what Phi-3 cannot express.

Sources: "GGUF" of ggml's documentation (names of fields and tensors), and the conversion scripts of
llama.cpp (what they write for the architectures `llama` and `phi3`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inputs import TrainError

if TYPE_CHECKING:
    from gguf import GGUFReader

MAGIC = b"GGUF"
ARCHITECTURES = ("llama", "phi3")
# Fields of an architecture that are honoured, or that do not change the answers.
KNOWN_FIELDS = {
    "context_length", "block_count", "embedding_length", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon",
    "attention.key_length", "attention.value_length", "attention.sliding_window",
    "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.attn_factor", "rope.scaling.finetuned",
    "expert_count", "expert_used_count",
}  # fmt: skip
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
FACTOR_TOLERANCE = 1e-4  # GGUF rounds the attention's factor to float32
UNSUPPORTED_FIX = "Phi-3 cannot express it; use another model"
DAMAGED_FIX = "the file is damaged or was not copied completely; get it again"


@dataclass(frozen=True)
class Header:
    """The sizes and settings of a model, as Phi-3 names them.

    Attributes:
        path: the GGUF file.
        architecture: "llama" or "phi3".
        layers: number of layers.
        hidden: width of the hidden states.
        intermediate: width of the feed-forward layers.
        heads: number of attention heads.
        key_value_heads: number of heads of keys and values.
        head_width: width of a head.
        vocabulary: number of rows of the embedding.
        context: length of the context window in tokens.
        epsilon: epsilon of the norms.
        sliding_window: number of tokens that a token attends to, or None for all.
        rope: Phi3Config's `rope_parameters`.
        original_context: context window before LongRoPE; otherwise equal to `context`.
        tied: whether the embedding is also the output matrix.
        tokens: ids of the special tokens: "bos", "eos", "eot", "padding".
        name: the model's name, or "".
        licence: identifier of the model's licence, or None.
    """

    path: Path
    architecture: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    context: int
    epsilon: float
    sliding_window: int | None
    rope: dict[str, Any]
    original_context: int
    tied: bool
    tokens: dict[str, int]
    name: str
    licence: str | None


class Fields:
    """The fields of a GGUF file.

    Args:
        reader: the opened file.
        path: the file, for error messages.

    Attributes:
        architecture: value of `general.architecture`.
    """

    def __init__(self, reader: GGUFReader, path: Path):
        self._reader = reader
        self.path = path
        self.architecture = str(self.get("general.architecture"))

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field's value; `{arch}` in the name stands for the architecture."""
        field = self._reader.get_field(self.full_name(name))
        return default if field is None else field.contents()

    def full_name(self, name: str) -> str:
        return name.replace("{arch}", getattr(self, "architecture", ""))

    def number(self, name: str, default: float | None = None, *, minimum: float = 1) -> Any:
        """Return a field that is a number.

        Raises:
            TrainError: the field is missing, is not a number, or is too small.
        """
        value = self.get(name, default)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not minimum <= value < math.inf:
            problem = f"the field {self.full_name(name)} is missing or not valid"
            raise TrainError(problem, self.path, DAMAGED_FIX)
        return value

    def names(self) -> list[str]:
        return list(self._reader.fields)

    def refuse(self, name: str) -> None:
        """Raise TrainError: Phi-3 cannot express this field."""
        value = self.get(name)
        problem = f"{self.full_name(name)} = {value} is not supported"
        raise TrainError(problem, self.path, UNSUPPORTED_FIX)


def open_file(path: Path) -> GGUFReader:
    """Open a GGUF file and check that all of its tensors are complete.

    Raises:
        TrainError: the file cannot be read, is not a GGUF file, or is truncated.
    """
    from gguf import GGUFReader

    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise TrainError("cannot read the model file", path, str(error.strerror)) from error
    if magic != MAGIC:
        raise TrainError("this is not a GGUF file", path, "give a file that ends with .gguf")
    try:
        reader = GGUFReader(path)
        end = max((t.data_offset + int(t.n_bytes) for t in reader.tensors), default=0)
    except MemoryError:
        raise
    except Exception as error:  # the package raises whatever its parser meets
        raise TrainError("the GGUF file cannot be read", path, DAMAGED_FIX) from error
    if end > path.stat().st_size or not reader.tensors:
        raise TrainError("the GGUF file is truncated", path, DAMAGED_FIX)
    return reader


def read_header(reader: GGUFReader, path: Path) -> Header:
    """Return the header of a GGUF file.

    Raises:
        TrainError: Phi-3 cannot express the model; the error names the field.
    """
    fields = Fields(reader, path)
    _check_fields(fields)
    hidden = fields.number("{arch}.embedding_length")
    heads = fields.number("{arch}.attention.head_count")
    head_width = fields.number("{arch}.attention.key_length", hidden // heads)
    if fields.get("{arch}.attention.value_length", head_width) != head_width:
        fields.refuse("{arch}.attention.value_length")
    context = fields.number("{arch}.context_length")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if "token_embd.weight" not in tensors:
        raise TrainError("the tensor token_embd.weight is missing", path, DAMAGED_FIX)
    special = {
        kind: fields.get(f"tokenizer.ggml.{kind}_token_id")
        for kind in ("bos", "eos", "eot", "padding")
    }
    rope = _rope(fields, tensors, head_width)
    return Header(
        path=path,
        architecture=fields.architecture,
        layers=fields.number("{arch}.block_count"),
        hidden=hidden,
        intermediate=fields.number("{arch}.feed_forward_length"),
        heads=heads,
        key_value_heads=fields.number("{arch}.attention.head_count_kv", heads),
        head_width=head_width,
        vocabulary=int(tensors["token_embd.weight"].shape[-1]),
        context=context,
        epsilon=fields.number("{arch}.attention.layer_norm_rms_epsilon", minimum=0),
        # Zero stands for a Phi-4, which attends to all tokens.
        sliding_window=fields.get("{arch}.attention.sliding_window") or None,
        rope=rope,
        original_context=rope.get("original_max_position_embeddings", context),
        tied="output.weight" not in tensors,
        tokens={kind: token for kind, token in special.items() if token is not None},
        name=str(fields.get("general.name", "")),
        licence=fields.get("general.license"),
    )


def _check_fields(fields: Fields) -> None:
    """Raise TrainError for an architecture or a field that Phi-3 cannot express."""
    if fields.architecture not in ARCHITECTURES:
        problem = f"general.architecture = {fields.architecture} is not supported"
        raise TrainError(problem, fields.path, f"use a model of {' or '.join(ARCHITECTURES)}")
    prefix = f"{fields.architecture}."
    for name in fields.names():
        if name.startswith(prefix) and name.removeprefix(prefix) not in KNOWN_FIELDS:
            fields.refuse(name)
    for name in ("{arch}.expert_count", "{arch}.expert_used_count"):
        if fields.get(name):
            fields.refuse(name)


def _rope(fields: Fields, tensors: dict[str, Any], head_width: int) -> dict[str, Any]:
    """Return Phi3Config's `rope_parameters`: rotary positions, with LongRoPE's factors if any."""
    kind = fields.get("{arch}.rope.scaling.type", "none")
    if kind not in ("none", "longrope"):
        fields.refuse("{arch}.rope.scaling.type")
    if fields.get("{arch}.rope.scaling.factor", 1) not in (0, 1):
        fields.refuse("{arch}.rope.scaling.factor")
    width = fields.number("{arch}.rope.dimension_count", head_width)
    if width > head_width or (fields.architecture == "llama" and width != head_width):
        fields.refuse("{arch}.rope.dimension_count")
    rope = {
        "rope_type": "default",
        "rope_theta": fields.number("{arch}.rope.freq_base", 10_000.0),
        "partial_rotary_factor": width / head_width,
    }
    if LONG_FACTORS not in tensors and SHORT_FACTORS not in tensors and kind == "none":
        return rope
    factors = {}
    for setting, name in (("long_factor", LONG_FACTORS), ("short_factor", SHORT_FACTORS)):
        tensor = tensors.get(name)
        if tensor is None or tensor.n_elements != width // 2:
            problem = f"the tensor {name} is missing or has another size"
            raise TrainError(problem, fields.path, DAMAGED_FIX)
        factors[setting] = [float(factor) for factor in tensor.data]
    original = fields.number("{arch}.rope.scaling.original_context_length")
    rope |= {"rope_type": "longrope", "original_max_position_embeddings": original, **factors}
    return rope | _attention_factor(fields, fields.number("{arch}.context_length"), original)


def _attention_factor(fields: Fields, context: int, original: int) -> dict[str, float]:
    """Return LongRoPE's `attention_factor` if it is not the one that transformers computes."""
    scale = context / original
    usual = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    factor = fields.number("{arch}.rope.scaling.attn_factor", usual, minimum=0)
    return (
        {}
        if math.isclose(factor, usual, rel_tol=FACTOR_TOLERANCE)
        else {"attention_factor": factor}
    )
