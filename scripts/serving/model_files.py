"""Where the model is in the folder that a deployment mounts (`AZUREML_MODEL_DIR`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A registered model is mounted under <name>/<version>/, and often one folder deeper.
DEPTH = 3
WEIGHTS = ("*.safetensors", "*.bin")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


class ModelNotFoundError(Exception):
    """The folder holds no model that can be served, or more than one."""


@dataclass(frozen=True)
class ModelFiles:
    """Two folders as `save_pretrained` writes them; one and the same for a plain model."""

    model: Path
    tokenizer: Path


def find_model(root: Path) -> ModelFiles:
    """The model in root, or up to three folders below it.

    Known layouts: a Hugging Face folder (config.json, weights and tokenizer together) and an
    MLflow model of the transformers flavour (`model/` and `components/tokenizer/`). The highest
    one wins, so a trainer's checkpoints do not hide the model that they belong to.
    Raises ModelNotFoundError, with what is wrong in one line.
    """
    if not root.is_dir():
        raise ModelNotFoundError(f"{root} is not a folder")
    level = [root]
    for _ in range(DEPTH + 1):
        found = [files for folder in level for files in _layouts(folder)]
        if len(found) > 1:
            names = ", ".join(sorted(str(files.model.relative_to(root)) for files in found))
            raise ModelNotFoundError(
                f"{root} holds more than one model ({names}): give one of them"
            )
        if found:
            return found[0]
        level = [child for folder in level for child in sorted(folder.iterdir()) if child.is_dir()]
    hint = (
        " (only a LoRA adapter: merge it first)" if any(root.rglob("adapter_config.json")) else ""
    )
    raise ModelNotFoundError(
        f"{root} holds no model{hint}: looked for config.json with weights and a tokenizer,"
        " or an MLflow model with model/ and components/tokenizer/"
    )


def _layouts(folder: Path) -> Iterator[ModelFiles]:
    if _has_weights(folder) and _has_tokenizer(folder):
        yield ModelFiles(folder, folder)
    elif _has_weights(folder / "model") and _has_tokenizer(folder / "components" / "tokenizer"):
        yield ModelFiles(folder / "model", folder / "components" / "tokenizer")


def _has_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(
        any(folder.glob(pattern)) for pattern in WEIGHTS
    )


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER)
