"""Adapters: configure them, start from one, save them, and merge them into the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inputs import Recipe, TrainError
from recipe_checks import PHI3_LORA_MODULES
from start import ADAPTER_CONFIG, ORIGIN_FILE, base_identity, check_adapter

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

TRAINED = "default"  # PEFT's name of the adapter that is trained; TRL's copy of it is `ref`


def make_lora(recipe: Recipe) -> LoraConfig | None:
    """Return PEFT's settings for the recipe's adapters, or None to train all weights.

    It does not use TRL's ModelConfig and get_peft_config: they turn a list of one module into a string,
    which PEFT reads as a pattern for the full name, so that it does not find the module.
    """
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora.get("r", 16),
        lora_alpha=recipe.lora.get("alpha", 32),
        lora_dropout=recipe.lora.get("dropout", 0.0),
        target_modules=recipe.lora.get("target_modules", PHI3_LORA_MODULES),
        modules_to_save=recipe.lora.get("modules_to_save"),
        use_rslora=recipe.lora.get("rslora", False),
        use_dora=recipe.lora.get("dora", False),
    )


def start_from(model: PreTrainedModel, adapter: Path, recipe: Recipe) -> PeftModel:
    """Return the base with an adapter that is trained further.

    Args:
        model: base model.
        adapter: folder of the adapter.
        recipe: recipe of the run.

    Raises:
        TrainError: the adapter is of another base, or cannot be loaded.
    """
    from peft import PeftModel

    # `prepare` has checked a base in a folder. The commit of a base on the hub is known only now.
    if commit := getattr(model.config, "_commit_hash", None):
        check_adapter(adapter, recipe, commit)
    try:
        return PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    except Exception as error:  # PEFT and safetensors raise whatever their parsers meet
        if type(error).__name__ == "OutOfMemoryError":
            raise
        fix = "give the adapter that was trained on this base, or copy it again; see --verbose"
        raise TrainError("the adapter does not fit the base", adapter, fix) from error


def save(model: Any, recipe: Recipe, folder: Path) -> None:
    """Save the trained adapter for PEFT and vLLM, and of which base it is.

    Args:
        model: trained model with adapters.
        recipe: recipe of the run.
        folder: folder to save the adapter in; it need not exist.
    """
    model.save_pretrained(folder, selected_adapters=[TRAINED])
    commit = getattr(model.config, "_commit_hash", None)
    origin = base_identity(recipe.model, commit)
    path = folder / ADAPTER_CONFIG
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = origin["base"]  # a folder's path is useless elsewhere
    for file, content in ((path, settings), (folder / ORIGIN_FILE, origin)):
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def merge(model: Any, recipe: Recipe, folder: Path) -> PreTrainedModel:
    """Return the model to deploy, with its adapters merged into the base.

    Adapters of a quantized base are merged into the original base, on the CPU: the quantized one has
    rounded weights.

    Args:
        model: trained model with adapters.
        recipe: recipe of the training.
        folder: folder in which `save` saved the adapters.
    """
    if recipe.quantization is None:
        model.set_adapter(TRAINED)
        return model.merge_and_unload(adapter_names=[TRAINED])
    import models
    import torch
    from peft import PeftModel

    original = models.load_base(recipe, "cpu", dtype=torch.bfloat16)
    return PeftModel.from_pretrained(original, folder).merge_and_unload()
