"""The sections of a recipe: which settings each may have, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import recipe_targets
import trainer_settings

TINY = "tiny"  # the name of the base model that tiny.py makes
SECTION_TYPES = {
    "model": str,
    "revision": str,
    "method": str,
    "seed": int,
    "attention": str,
    "save_dtype": str,
    "samples": int,
    "max_cut_share": (int, float),
    "trained_layers": int,
    "rows_per_sequence": int,
    "small_data": dict,
    "tiny": dict,
    "lora": dict,
    "merge": bool,
    "early_stopping": dict,
    "quantization": str,
    "fsdp": dict,
    "trainer": dict,
    "mixture": dict,
    "streaming": dict,
    "report_to": list,
    "use_kernels": bool,
    "push_to_hub": bool,
    "hub_model_id": str,
    "hub_private": bool,
}
TYPE_NAMES = {
    str: "text",
    bool: "true or false",
    int: "an integer",
    (int, float): "a number from 0 to 1",
    dict: "a mapping",
    list: "a list",
}
SMALL_DATA_KEYS = {"repetitions", "steps"}
SFT, DPO = "sft", "dpo"
METHODS = (SFT, DPO)
EARLY_STOPPING_TYPES = {"patience": int, "min_gain": (int, float)}
LORA_TYPES = {
    "r": int, "alpha": (int, float), "dropout": (int, float), "target_modules": (list, str),
    "modules_to_save": list, "rslora": bool, "dora": bool,
}  # fmt: skip
ALL_LINEAR = "all-linear"  # PEFT's name for all linear layers but the head
# Phi-3 and Phi-4-mini fuse their projections: they have no q_proj or gate_proj.
PHI3_LORA_MODULES = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
# Settings of Phi3Config that the model reads. Phi3Config accepts any other name and ignores it.
TINY_KEYS = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings", "hidden_act",
    "initializer_range", "rms_norm_eps", "rope_parameters", "sliding_window", "attention_dropout",
    "resid_pdrop",
}  # fmt: skip
# Settings of `fsdp_config` for FSDP2. transformers ignores any other name.
FSDP_KEYS = {
    "reshard_after_forward", "state_dict_type", "activation_checkpointing", "cpu_offload",
    "cpu_ram_efficient_loading", "auto_wrap_policy", "transformer_layer_cls_to_wrap",
    "min_num_params",
}  # fmt: skip
TINY_REQUIRED_KEYS = {"vocab_size", "hidden_size", "max_position_embeddings"}
QUANTIZATIONS = ("nf4",)
MASK_ATTENTIONS = ("sdpa", "eager")  # that take a mask for each token
SAVE_DTYPES = ("float32", "bfloat16", "float16")


def find_problem(content: Any) -> str | None:
    """Return the first problem of a recipe's content, or None if it is valid."""
    if not isinstance(content, dict) or "model" not in content:
        return "the recipe has no `model`"
    for key, value in content.items():
        if key not in SECTION_TYPES:
            return f"unknown section {key!r} in the recipe"
        if not _is_a(value, SECTION_TYPES[key]):
            return f"the recipe's {key!r} is not {TYPE_NAMES[SECTION_TYPES[key]]}"
    if not 0 <= content.get("max_cut_share", 0) <= 1:
        return "the recipe's max_cut_share is not a number from 0 to 1"
    if content.get("save_dtype", SAVE_DTYPES[0]) not in SAVE_DTYPES:
        return f"the recipe's save_dtype is not one of {', '.join(SAVE_DTYPES)}"
    if content.get("quantization", QUANTIZATIONS[0]) not in QUANTIZATIONS:
        return f"the recipe's quantization is not one of {', '.join(QUANTIZATIONS)}"
    if "quantization" in content and "lora" not in content:
        return (
            "the recipe has `quantization` without `lora`, and quantized weights cannot be trained"
        )
    if "fsdp" in content and "lora" in content:
        return "the recipe has `fsdp` with `lora`, and only full training is sharded"
    if unknown := sorted(content.get("lora", {}).keys() - LORA_TYPES.keys()):
        return f"unknown setting lora.{unknown[0]}"
    if unknown := sorted(content.get("fsdp", {}).keys() - FSDP_KEYS):
        return f"unknown setting fsdp.{unknown[0]}"
    if unknown := sorted(content.get("tiny", {}).keys() - TINY_KEYS):
        return f"unknown setting tiny.{unknown[0]}"
    if "tiny" in content and content["model"] != TINY:
        return f"the recipe has a section `tiny`, and its model is {content['model']!r}"
    if content["model"] == TINY and (problem := tiny_problem(content)):
        return problem
    trainer = content.get("trainer", {})
    problem = (
        _lora_problem(content)
        or _method_problem(content)
        or _early_stopping_problem(content, trainer)
        or _scope_problem(content, trainer)
        or _small_data_problem(content, trainer)
        or recipe_targets.find_problem(content)
    )
    is_dpo = content.get("method") == DPO
    return problem or trainer_settings.find_problem(trainer, "fsdp" in content, is_dpo=is_dpo)


def _is_a(value: Any, types: Any) -> bool:
    """Return whether a value has a type. YAML's `yes` is True, which Python takes for the integer 1."""
    return isinstance(value, types) and isinstance(value, bool) == (types is bool)


def _lora_problem(content: Mapping[str, Any]) -> str | None:
    """Return the first problem of `lora` and `merge`, or None."""
    lora = content.get("lora", {})
    for key, value in lora.items():
        if not _is_a(value, LORA_TYPES[key]):
            return f"the recipe's lora.{key} has the wrong type"
    modules = lora.get("target_modules", ALL_LINEAR)
    if isinstance(modules, str) and modules != ALL_LINEAR:
        return f"the recipe's lora.target_modules is not a list of names or {ALL_LINEAR}"
    if "merge" in content and "lora" not in content:
        return "the recipe has `merge` without `lora`, and only adapters can be merged"
    return None


def _method_problem(content: Mapping[str, Any]) -> str | None:
    """Return why a recipe cannot use its `method`, or None."""
    method = content.get("method", SFT)
    if method not in METHODS:
        return f"the recipe's method is not one of {', '.join(METHODS)}"
    if method == SFT:
        return None
    if "lora" not in content:
        return (
            "the recipe has `method: dpo` without `lora`, and the reference is the model without its "
            "adapters"
        )
    if content["lora"].get("dropout") and content.get("trainer", {}).get("disable_dropout", True):
        return "the recipe's lora.dropout needs `trainer.disable_dropout: false` with `method: dpo`"
    for key in ("small_data", "rows_per_sequence", "trained_layers"):
        if key in content:
            return f"the recipe has `{key}` with `method: dpo`, which does not support it"
    return None


def _early_stopping_problem(content: Mapping[str, Any], trainer: Mapping[str, Any]) -> str | None:
    """Return the first problem of `early_stopping`, or None."""
    if "early_stopping" not in content:
        return None
    values = content["early_stopping"]
    if "patience" not in values:
        return "the recipe's early_stopping needs patience"
    if unknown := sorted(values.keys() - EARLY_STOPPING_TYPES.keys()):
        return f"unknown setting early_stopping.{unknown[0]}"
    for key, value in values.items():
        if not _is_a(value, EARLY_STOPPING_TYPES[key]) or value < 0:
            return f"the recipe's early_stopping.{key} is not a number of at least 0"
    if values["patience"] == 0:
        return "the recipe's early_stopping.patience is not above 0"
    if not trainer.get("load_best_model_at_end"):
        return "the recipe has `early_stopping` without `trainer.load_best_model_at_end: true`"
    return None


def _scope_problem(content: Mapping[str, Any], trainer: Mapping[str, Any]) -> str | None:
    """Return the first problem of `trained_layers` and `rows_per_sequence`, or None."""
    for key in ("trained_layers", "rows_per_sequence"):
        if content.get(key, 1) < 1:
            return f"the recipe's {key} is not above 0"
    for key in ("lora", "fsdp"):
        if "trained_layers" in content and key in content:
            return f"the recipe has `trained_layers` with `{key}`, which does not support it"
    if content.get("rows_per_sequence", 1) == 1:
        return None
    for key in ("packing", "eval_packing", "pad_to_multiple_of"):
        if trainer.get(key):
            return f"the recipe has `rows_per_sequence` with trainer.{key}: use only one of them"
    if content.get("attention") not in MASK_ATTENTIONS:
        return f"`rows_per_sequence` needs `attention: {' or '.join(MASK_ATTENTIONS)}`"
    return None


def _small_data_problem(content: Mapping[str, Any], trainer: Mapping[str, Any]) -> str | None:
    """Return the first problem of `small_data`, or None."""
    if "small_data" not in content:
        return None
    values = content["small_data"]
    if values.keys() != SMALL_DATA_KEYS:
        return f"the recipe's small_data needs {' and '.join(sorted(SMALL_DATA_KEYS))}"
    if not all(type(value) is int and value > 0 for value in values.values()):
        return "a setting of the recipe's small_data is not an integer above 0"
    for key in ("packing", "max_steps"):
        if trainer.get(key):
            return f"the recipe has `small_data` with trainer.{key}: use only one of them"
    return None


def tiny_problem(sections: Mapping[str, Any]) -> str | None:
    """Return why a recipe with these sections cannot train the tiny model, or None if it can."""
    missing = sorted(TINY_REQUIRED_KEYS - (sections.get("tiny") or {}).keys())
    if missing:
        return f"the recipe has no tiny.{missing[0]}"
    if sections.get("quantization"):
        return "the recipe has `quantization`, which the tiny model does not use"
    if sections.get("use_kernels"):
        return "the recipe has `use_kernels`, which the tiny model does not use"
    return None
