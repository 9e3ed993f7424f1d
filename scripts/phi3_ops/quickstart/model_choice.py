"""The model that a quickstart fine-tunes, and the recipe and the questions that suit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import OpsError
from ..models import SHORT_NAMES, is_converted_here, resolve_model
from ..names import did_you_mean
from ..training import DEFAULT_RECIPE, PRETRAINED_RECIPE, base_model_of

DEFAULT_MODEL = "smollm2"
TINY = "tiny"  # train.py makes this model from the training rows
# Largest size of the weights that a recipe for two CPU cores trains; smollm2 has 0.54 GB.
TINY_BYTES, SMALL_BYTES = 20 * 10**6, 1_200 * 10**6
QUESTIONS = 60  # of each kind; the share of right answers is then known to within 13 points
WEIGHT_FILES = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class ModelChoice:
    """A model and its training.

    Attributes:
        model: short name, GGUF file, folder or hub id; "" if only the recipe's content names it.
        recipe: name of a shipped recipe, or a YAML file; None if it follows from the model's size.
        questions: maximum number of questions of each kind; None means all of them.
    """

    model: str
    recipe: str | None
    questions: int | None

    @property
    def is_tiny(self) -> bool:
        """Whether train.py makes the model from the training rows."""
        return self.model.lower() == TINY and not Path(self.model).is_dir()

    def base_folder(self) -> Path | None:
        """Return the folder of the base model. A short name and a GGUF file are converted if needed.

        Returns:
            The folder, or None if the model is not on this machine.

        Raises:
            OpsError: the model cannot be fetched or converted.
        """
        if self.is_tiny or not self.model:
            return None
        folder = resolve_model(self.model)
        return folder if (folder / "config.json").is_file() else None


def choose_model(model: str | None, recipe: str | None, questions: int | None) -> ModelChoice:
    """Return the model to fine-tune, from the options of the command.

    Args:
        model: the option `--model`, or None.
        recipe: the option `--recipe`, or None.
        questions: the option `--questions`, or None.

    Raises:
        OpsError: the recipe does not exist, or the model needs one.
    """
    if recipe:
        chosen = base_model_of(recipe, model)
        is_tiny = chosen.lower() == TINY
        return ModelChoice(chosen, recipe, questions or (None if is_tiny else QUESTIONS))
    model = model or DEFAULT_MODEL
    if model.lower() == TINY and not Path(model).is_dir():
        return ModelChoice(model, DEFAULT_RECIPE, questions)
    if model.lower() in SHORT_NAMES and not Path(model).is_dir():
        return ModelChoice(model, PRETRAINED_RECIPE, questions or QUESTIONS)
    if Path(model).is_dir():
        return ModelChoice(model, recipe_by_size(Path(model)), questions or QUESTIONS)
    if is_converted_here(model):
        return ModelChoice(model, None, questions or QUESTIONS)
    names = ", ".join((TINY, *SHORT_NAMES))
    what = f"{model!r} is neither a folder, nor a GGUF file, nor one of {names}"
    fix = "To train a model of the hub, give --recipe, for example lora"
    raise OpsError(what, fix + (did_you_mean(model, [TINY, *SHORT_NAMES]) or "."))


def recipe_by_size(folder: Path) -> str:
    """Return the recipe for two CPU cores that suits a model.

    Raises:
        OpsError: the model is too large for any of them.
    """
    files = (file for pattern in WEIGHT_FILES for file in folder.glob(pattern))
    size = sum(file.stat().st_size for file in files)
    if size <= SMALL_BYTES:
        return DEFAULT_RECIPE if size <= TINY_BYTES else PRETRAINED_RECIPE
    raise OpsError(
        f"{folder} has {size / 10**9:.1f} GB of weights, which is too much to train on a CPU",
        "Give --recipe, for example lora for a GPU of 24 GB.",
    )
