"""The model that is exported: its configuration, tokenizer, name and weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import load_json_object
from ..models import resolve_folder
from .weights import Weights

ARCHITECTURE = "phi3"
BASE_FILE = "phi3-base.json"  # scripts/training/gguf_model.py writes it


@dataclass(frozen=True)
class SourceModel:
    """A Phi-3 in a folder.

    Attributes:
        folder: the folder.
        name: name of the model for people.
        licence: identifier of its licence, or None if it is unknown.
        config: transformers' configuration.
        tokenizer: transformers' tokenizer.
        weights: the weights.
    """

    folder: Path
    name: str
    licence: str | None
    config: Any
    tokenizer: Any
    weights: Weights

    @property
    def head_width(self) -> int:
        """Width of an attention head."""
        config = self.config
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        return int(width)

    @property
    def rope(self) -> dict[str, Any]:
        """The settings of the rotary positions."""
        return dict(self.config.rope_parameters)

    @property
    def rope_width(self) -> int:
        """Number of a head's dimensions that are rotated."""
        return int(self.head_width * self.rope.get("partial_rotary_factor", 1.0))

    @property
    def original_context(self) -> int:
        """Context window before LongRoPE; otherwise the context window."""
        original = self.rope.get("original_max_position_embeddings") or getattr(
            self.config, "original_max_position_embeddings", None
        )
        return int(original or self.config.max_position_embeddings)

    @property
    def attention_factor(self) -> float:
        """LongRoPE's factor of the attention, as transformers computes it."""
        if factor := self.rope.get("attention_factor"):
            return float(factor)
        scale = self.config.max_position_embeddings / self.original_context
        return (
            math.sqrt(1 + math.log(scale) / math.log(self.original_context)) if scale > 1 else 1.0
        )

    @property
    def end_tokens(self) -> list[str]:
        """The tokens that end an answer: those of the generation settings, and the tokenizer's."""
        ids: list[int] = []
        for setting in (_generation_end(self.folder), self.config.eos_token_id):
            ids += setting if isinstance(setting, list) else [setting]
        tokens = [self.tokenizer.convert_ids_to_tokens(i) for i in ids if isinstance(i, int)]
        return list(dict.fromkeys(filter(None, [self.tokenizer.eos_token, *tokens])))

    @property
    def tensor_names(self) -> list[str]:
        """The names of the weights; a tied output matrix is left out."""
        is_tied = self.config.tie_word_embeddings
        return [name for name in self.weights.names if not (is_tied and name == "lm_head.weight")]


def _generation_end(folder: Path) -> Any:
    try:
        return load_json_object(folder / "generation_config.json").get("eos_token_id")
    except (OSError, ValueError):
        return None


def load_source(model: str, name: str | None = None) -> SourceModel:
    """Load the configuration and the tokenizer of a model, and open its weights.

    Args:
        model: folder of the model or of `phi3 finetune`, short name, or GGUF file.
        name: name of the model for people; None takes that of a converted model, or the folder's.

    Raises:
        OpsError: the folder does not contain a complete Phi-3.
    """
    folder = model_folder(resolve_folder(model))
    config = _load_config(folder)
    if config.model_type != ARCHITECTURE:
        what = f"{folder} is a model of the architecture {config.model_type}"
        raise OpsError(what, "Only Phi-3 and its successors of the same architecture are exported.")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises whatever its parsers meet
        raise OpsError(f"cannot read the tokenizer in {folder}: {_brief(error)}") from error
    if not tokenizer.chat_template:
        raise OpsError(f"the tokenizer in {folder} has no chat template", "Use an instruct model.")
    base = _read_base(folder)
    title = name or base.get("name") or folder.resolve().name
    return SourceModel(
        folder=folder,
        name=str(title),
        licence=base.get("licence"),
        config=config,
        tokenizer=tokenizer,
        weights=Weights(folder),
    )


def model_folder(folder: Path) -> Path:
    """Return the folder with config.json: the folder itself, or `model` in an output of a training.

    Raises:
        OpsError: neither contains a model.
    """
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").is_file():
            return candidate
    adapters = (f for f in (folder, folder / "adapter") if (f / "adapter_config.json").is_file())
    if adapter := next(adapters, None):
        fix = (
            "Merge it into its base model first: phi3 finetune does so unless --merge no is given."
        )
        raise OpsError(f"{adapter} contains a LoRA adapter only", fix)
    what = f"{folder} does not contain a model: config.json is missing"
    raise OpsError(what, "Give the folder of a fine-tuned model, smollm2, or a GGUF file.")


def _load_config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its parsers meet
        raise OpsError(f"cannot read {folder / 'config.json'}: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_base(folder: Path) -> dict[str, Any]:
    """Return what is known about a converted model: its name and its licence."""
    try:
        return load_json_object(folder / BASE_FILE)
    except (OSError, ValueError):
        return {}
