"""Where a run starts: a base model, the model of an earlier run, or an adapter on its base."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inputs import Recipe, TrainError
from recipe_checks import TINY

if TYPE_CHECKING:
    from options import CommandLine

ADAPTER_CONFIG = "adapter_config.json"  # PEFT's
ORIGIN_FILE = "phi3-adapter.json"  # of which base the adapter is
HASH_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class Start:
    """What --from names; neither of them without the option.

    Attributes:
        model: folder of a model to start from, or None.
        adapter: folder of an adapter to start from, or None.
    """

    model: str | None = None
    adapter: Path | None = None


def find_start(options: CommandLine) -> Start:
    """Return the model or the adapter in the folder of --from.

    Raises:
        TrainError: the folder has neither, or --model names another model.
    """
    folder = options.start_from
    if folder is None:
        return Start()
    for candidate in (folder, folder / "model", folder / "adapter"):
        if (candidate / ADAPTER_CONFIG).is_file():
            return Start(adapter=candidate)
        if (candidate / "config.json").is_file():
            if options.model is not None:
                fix = "leave out --model, or give the folder of an adapter"
                raise TrainError("--from names a complete model, not an adapter", candidate, fix)
            return Start(model=candidate.as_posix())
    fix = "give the output folder of a run, a model folder or an adapter folder"
    raise TrainError("the folder has neither a model nor an adapter", folder, fix)


def base_identity(model: str, commit: str | None = None) -> dict[str, str]:
    """Return what identifies a base model: the hash of its weights, or its id and commit on the hub.

    Args:
        model: folder or hub id.
        commit: commit of a model of the hub, once it is loaded.
    """
    if not Path(model).is_dir():
        return {"base": model, **({"base_commit": commit} if commit else {})}
    digest = hashlib.sha256()
    for path in sorted(Path(model).glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(HASH_BLOCK):
                digest.update(block)
    return {"base": Path(model).name, "base_sha256": digest.hexdigest()}


def read_origin(adapter: Path) -> dict[str, Any]:
    """Return an adapter's ORIGIN_FILE; for an adapter of another program, PEFT's name of its base."""
    try:
        return dict(json.loads((adapter / ORIGIN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {"base": read_adapter_config(adapter).get("base_model_name_or_path")}


def read_adapter_config(adapter: Path) -> dict[str, Any]:
    """Return PEFT's settings of an adapter.

    Raises:
        TrainError: the file is not valid.
    """
    path = adapter / ADAPTER_CONFIG
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise TrainError("the adapter's settings cannot be read", path, "copy it again") from error


def check_adapter(adapter: Path, recipe: Recipe, commit: str | None = None) -> None:
    """Check that an adapter was trained on the recipe's base and has the recipe's settings.

    Args:
        adapter: folder of the adapter.
        recipe: recipe of the run.
        commit: commit of a base of the hub, once it is loaded.

    Raises:
        TrainError: the base is another one, or a setting differs.
    """
    if recipe.model == TINY:
        fix = "give the base's folder with --model"
        raise TrainError("the tiny model is made anew, and no adapter is of it", adapter, fix)
    origin, identity = read_origin(adapter), base_identity(recipe.model, commit)
    for key, value in identity.items():
        is_name_only = key == "base" and "base_sha256" in origin.keys() & identity.keys()
        if not is_name_only and origin.get(key, value) != value:
            fix = f"give that base with --model; the adapter's is {origin['base']}"
            raise TrainError(f"the adapter is of another base than {recipe.model}", adapter, fix)
    settings = read_adapter_config(adapter)
    wanted = {"r": settings.get("r"), "alpha": settings.get("lora_alpha")}
    for key, value in wanted.items():
        if (recipe.lora or {}).get(key, value) != value:
            fix = f"write {key}: {value} into the recipe, or start without --from"
            raise TrainError(f"the adapter has another lora.{key} than the recipe", adapter, fix)
