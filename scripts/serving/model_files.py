"""Finds the model in the folder that a deployment mounts (`AZUREML_MODEL_DIR`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A registered model is mounted under <name>/<version>/, and is often one folder deeper.
MAX_DEPTH = 3
WEIGHTS = ("*.safetensors", "*.bin")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


class ModelNotFoundError(Exception):
    """A folder does not contain a model that can be served, or contains more than one."""


@dataclass(frozen=True)
class ModelFiles:
    """The folders of a model, as `save_pretrained` writes them.

    Attributes:
        model: folder with the configuration and the weights.
        tokenizer: folder with the tokenizer; often the same one.
    """

    model: Path
    tokenizer: Path


def find_model(root: Path) -> ModelFiles:
    """Return the model in a folder, or up to three folders below it.

    Two layouts are known: a Hugging Face folder (config.json, weights and tokenizer together), and
    an MLflow model of the transformers flavor (`model/` and `components/tokenizer/`). The model
    closest to the root is returned, so checkpoints below a trained model are ignored.

    Raises:
        ModelNotFoundError: with a message of one line.
    """
    if not root.is_dir():
        raise ModelNotFoundError(f"{root} is not a folder")
    folders = [root]
    for _ in range(MAX_DEPTH + 1):
        models = [files for folder in folders for files in _models_in(folder)]
        if len(models) > 1:
            names = ", ".join(sorted(str(files.model.relative_to(root)) for files in models))
            raise ModelNotFoundError(
                f"{root} contains more than one model ({names}): use the folder of one of them"
            )
        if models:
            return models[0]
        folders = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_dir()]
    has_adapter = any(root.rglob("adapter_config.json"))
    hint = " (only a LoRA adapter: merge it into its base model)" if has_adapter else ""
    raise ModelNotFoundError(
        f"{root} contains no model{hint}: expected config.json with weights and a tokenizer,"
        " or an MLflow model with model/ and components/tokenizer/"
    )


def _models_in(folder: Path) -> Iterator[ModelFiles]:
    mlflow = ModelFiles(folder / "model", folder / "components" / "tokenizer")
    if _has_weights(folder) and _has_tokenizer(folder):
        yield ModelFiles(folder, folder)
    elif _has_weights(mlflow.model) and _has_tokenizer(mlflow.tokenizer):
        yield mlflow


def _has_weights(folder: Path) -> bool:
    has_weights = any(any(folder.glob(pattern)) for pattern in WEIGHTS)
    return has_weights and (folder / "config.json").is_file()


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER)
