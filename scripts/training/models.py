"""The model to train: a base from a folder, the hub or tiny.py; adapters on it, and their merging."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import devices
import distributed
from inputs import TINY, Recipe, Row, TrainError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Phi-3 fuses its projections: q_proj and gate_proj of other models do not exist. Phi-4-mini likewise.
PHI3_LORA_MODULES = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def load(
    recipe: Recipe, rows: list[Row], device: str, place: distributed.Place, path: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model that a recipe names, and its tokenizer.

    Args:
        recipe: names the model.
        rows: to train on; the tiny model's tokenizer is made from them.
        device: a key of devices.PRECISIONS.
        place: of this process among those that train together.
        path: the recipe's file, for messages.

    Raises:
        TrainError: it cannot be loaded, or made.
    """
    if recipe.model == TINY:
        return make_tiny(recipe, rows, path)
    tokenizer = load_tokenizer(recipe, rows, path)
    more: dict[str, Any] = {"dtype": weights_dtype(recipe, device)}
    if recipe.quantization is not None:
        more |= {
            "quantization_config": quantization(recipe, device, path),
            "device_map": {"": place.local_rank},
        }
    return base(recipe, device, **more), tokenizer


def load_tokenizer(recipe: Recipe, rows: list[Row], path: Path) -> PreTrainedTokenizerBase:
    """The base model's tokenizer alone.

    Raises:
        TrainError: it cannot be loaded.
    """
    if recipe.model == TINY:
        return make_tiny(recipe, rows, path)[1]
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(recipe.model, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _cannot_load(recipe.model) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def base(recipe: Recipe, device: str, **more: Any) -> PreTrainedModel:
    """A base model from a folder or the hub. Its code is transformers', never the model's own.

    Raises:
        TrainError: it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            recipe.model,
            attn_implementation=devices.choose_attention(recipe.attention, device),
            trust_remote_code=False,
            **more,
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _cannot_load(recipe.model) from error


def _cannot_load(model: str) -> TrainError:
    fix = "give a complete folder, or a hub id that this machine can reach; see --verbose"
    return TrainError("cannot load the model", model, fix)


def weights_dtype(recipe: Recipe, device: str) -> Any:
    """What the weights are kept in while they are trained, or while adapters are.

    All weights trained: float32, since AdamW's small steps vanish in bf16's 8 bits. Under LoRA they
    stay as they are, and only the adapters (which PEFT keeps in float32) are trained.
    """
    import torch

    if recipe.lora is None or device == "cpu":
        return torch.float32
    if device == "cuda":
        return torch.bfloat16
    return torch.float16 if recipe.quantization else torch.float32


def quantization(recipe: Recipe, device: str, path: Path) -> Any:
    """QLoRA's frozen base: 4-bit NormalFloat, its constants quantized once more.

    Source: "QLoRA: Efficient Finetuning of Quantized LLMs".

    Raises:
        TrainError: there is no GPU, or no bitsandbytes.
    """
    import importlib.util

    import torch

    if device == "cpu":
        fix = "it needs an NVIDIA GPU; use recipes/lora.yaml here"
        raise TrainError("`quantization` cannot run on the CPU", path, fix)
    if importlib.util.find_spec("bitsandbytes") is None:
        fix = "pip install bitsandbytes, or use recipes/lora.yaml"
        raise TrainError("`quantization` needs the package bitsandbytes", path, fix)
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=recipe.quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if device == "cuda" else torch.float16,
    )


def make_tiny(
    recipe: Recipe, rows: list[Row], path: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The tiny base: random weights, and a tokenizer that has seen the training rows only."""
    import tiny

    shape = dict(recipe.tiny)
    texts = (message["content"] for row in rows for message in row["messages"])
    window = shape["max_position_embeddings"]
    try:
        tokenizer = tiny.make_tokenizer(texts, shape.pop("vocab_size"), window)
        return tiny.make_model(tokenizer, shape), tokenizer
    except (TypeError, ValueError) as error:
        fix = "compare with recipes/tiny-cpu.yaml"
        raise TrainError("the `tiny` settings make no Phi-3", path, fix) from error


def make_lora(recipe: Recipe) -> Any:
    """PEFT's settings, or None to train all weights."""
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora.get("r", 16),
        lora_alpha=recipe.lora.get("alpha", 32),
        lora_dropout=recipe.lora.get("dropout", 0.0),
        target_modules=recipe.lora.get("target_modules", PHI3_LORA_MODULES),
    )


def merged(model: Any, recipe: Recipe, folder: Path) -> PreTrainedModel:
    """The model to deploy, adapters merged into the base.

    A quantized base would keep its rounding: the adapters go onto the base as it came, on the CPU.

    Args:
        model: as it was trained.
        recipe: what it was trained by.
        folder: for the adapters on their way; need not exist.
    """
    if recipe.lora is None:
        return model
    if recipe.quantization is None:
        return model.merge_and_unload()
    import torch
    from peft import PeftModel

    model.save_pretrained(folder)
    whole = base(recipe, "cpu", dtype=torch.bfloat16)
    return PeftModel.from_pretrained(whole, folder).merge_and_unload()
