"""The model to train: load or make the base, and choose which of its weights are trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import devices
import tool_rows
from distributed import ProcessInfo
from inputs import Recipe, Row, TrainError
from recipe_checks import TINY

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

LONGEST_REASON = 200  # characters of a library's reason


def load(
    recipe: Recipe, rows: list[Row], device: str, process: ProcessInfo, path: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the recipe's base model and its tokenizer.

    Args:
        recipe: recipe with the model's name.
        rows: rows to train on; the tiny model's tokenizer is made from them.
        device: key of devices.PRECISIONS.
        process: this process among those that train together.
        path: the recipe's file, for error messages.

    Raises:
        TrainError: the model cannot be loaded or made.
    """
    if recipe.model == TINY:
        model, tokenizer = make_tiny(recipe, rows, path)
        try:
            model.set_attn_implementation(devices.choose_attention(recipe.attention, device))
        except (ValueError, ImportError) as error:
            fix = "use auto, sdpa or eager"
            raise TrainError(f"cannot use `attention: {recipe.attention}`", path, fix) from error
        return model, tokenizer
    tokenizer = load_tokenizer(recipe, rows, path)
    settings: dict[str, Any] = {"dtype": weights_dtype(recipe, device)}
    if recipe.quantization is not None:
        settings["quantization_config"] = make_quantization(recipe, device, path)
        settings["device_map"] = {"": process.local_rank}
    if recipe.use_kernels:
        check_kernels(device, path)
        settings["use_kernels"] = True
    return load_base(recipe, device, **settings), tokenizer


def load_tokenizer(recipe: Recipe, rows: list[Row], path: Path) -> PreTrainedTokenizerBase:
    """Load only the base model's tokenizer.

    Raises:
        TrainError: the tokenizer cannot be loaded.
    """
    if recipe.model == TINY:
        return make_tiny(recipe, rows, path)[1]
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            recipe.model, revision=recipe.revision, trust_remote_code=False
        )
    except Exception as error:  # transformers raises whatever its parsers meet
        raise _loading_error(recipe.model, error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not tool_rows.is_in_format(rows, recipe.model, str(tokenizer.chat_template)):
        fix = "download the model and give its folder, so that its template can be read first"
        raise TrainError("the calls do not have the format of the chat template", recipe.model, fix)
    return tokenizer


def load_base(recipe: Recipe, device: str, **settings: Any) -> PreTrainedModel:
    """Load a base model from a folder or the hub, with transformers' code and never the model's own.

    Args:
        recipe: recipe with the model's name and `attention`.
        device: key of devices.PRECISIONS.
        settings: further arguments of `from_pretrained`.

    Raises:
        TrainError: the model cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            recipe.model,
            attn_implementation=devices.choose_attention(recipe.attention, device),
            revision=recipe.revision,
            trust_remote_code=False,
            **settings,
        )
    except Exception as error:  # transformers raises whatever its parsers meet
        raise _loading_error(recipe.model, error) from error


def _loading_error(model: str, error: Exception) -> Exception:
    """Return the error for a model that cannot be loaded; some errors stay as they are."""
    if isinstance(error, TrainError) or type(error).__name__ == "OutOfMemoryError":
        return error
    if not Path(model).is_dir():
        fix = "give a complete folder, or a hub id that this machine can reach; see --verbose"
        return TrainError("cannot load the model", model, fix)
    reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
    fix = "give a complete folder, and copy a damaged file again"
    return TrainError("cannot load the model", model, f"{reason}; {fix}")


def weights_dtype(recipe: Recipe, device: str) -> Any:
    """Return the data type of the base model's weights during training.

    Weights that are trained are float32: AdamW's small steps are lost in bf16, which has 8 significant
    bits. Under LoRA the base's weights do not change, and `train_in_float32` keeps the adapters in
    float32.
    """
    import torch

    if recipe.lora is None or device == "cpu":
        return torch.float32
    if device == "cuda":
        return torch.bfloat16
    return torch.float16 if recipe.quantization else torch.float32


def freeze(model: PreTrainedModel, recipe: Recipe, path: Path) -> None:
    """Train only the last layers, if the recipe has `trained_layers`.

    The embeddings, the layers before and the last norm keep their weights. They need no gradients and no
    optimizer states, and the backward pass ends at the first trained layer.

    Args:
        model: base model.
        recipe: recipe of the run.
        path: the recipe's file, for error messages.

    Raises:
        TrainError: the model has fewer layers.
    """
    if recipe.trained_layers is None:
        return
    layers = model.base_model.layers
    if recipe.trained_layers > len(layers):
        problem = (
            f"`trained_layers: {recipe.trained_layers}` is more than the model's {len(layers)}"
        )
        raise TrainError(problem, path, "lower it, or remove it to train all weights")
    model.requires_grad_(False)
    for layer in layers[-recipe.trained_layers :]:
        layer.requires_grad_(True)


def train_in_float32(model: torch.nn.Module) -> None:
    """Make the weights that are trained float32.

    TRL makes the adapters of a quantized base bf16. Before Ampere the training scales the loss for fp16,
    and torch cannot unscale bf16 gradients on a GPU; on newer GPUs AdamW's small steps would be lost.
    """
    import torch

    for weight in model.parameters():
        if weight.requires_grad and weight.dtype != torch.float32:
            weight.data = weight.data.float()


def round_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Round the weights to the values that a file of a data type keeps; their own type stays."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype).to(weight.dtype)


def make_quantization(recipe: Recipe, device: str, path: Path) -> BitsAndBytesConfig:
    """Return the settings of QLoRA's frozen base: 4-bit NormalFloat with double quantization.

    Source: "QLoRA: Efficient Finetuning of Quantized LLMs".

    Raises:
        TrainError: the machine has no GPU, or bitsandbytes is not installed.
    """
    import importlib.util

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
        bnb_4bit_compute_dtype=weights_dtype(recipe, device),
    )


def check_kernels(device: str, path: Path) -> None:
    """Check that the base's layers can use the kernels of the hub.

    Source: `use_liger_kernel` of TRL 1.16's SFTConfig, which names `use_kernels` as its successor.

    Raises:
        TrainError: the machine has no GPU, or no version of kernels that transformers accepts.
    """
    if device == "cpu":
        fix = "it needs a GPU; remove it from the recipe"
        raise TrainError("`use_kernels` cannot run on the CPU", path, fix)
    from transformers.utils import is_kernels_available

    if not is_kernels_available():
        fix = "pip install kernels, in a version that this transformers accepts, or remove it"
        raise TrainError("`use_kernels` needs the package kernels", path, fix)


def make_tiny(
    recipe: Recipe, rows: list[Row], path: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Make the tiny base: random weights, and a tokenizer trained on the training rows only.

    Raises:
        TrainError: the recipe's `tiny` settings are not valid.
    """
    import tiny
    from huggingface_hub.errors import StrictDataclassError

    shape = dict(recipe.tiny)
    texts = (message["content"] for row in rows for message in row["messages"])
    window = shape["max_position_embeddings"]
    try:
        tokenizer = tiny.make_tokenizer(texts, shape.pop("vocab_size"), window)
        return tiny.make_model(tokenizer, shape), tokenizer
    except (TypeError, ValueError, StrictDataclassError) as error:
        problem = "the `tiny` settings do not describe a valid Phi-3"
        raise TrainError(problem, path, "compare with recipes/tiny-cpu.yaml") from error
