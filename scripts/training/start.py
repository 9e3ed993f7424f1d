"""Where a run starts: a base model, the model of an earlier run, or an adapter on its base."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inputs import Recipe, TrainError, is_local_model
from recipe_checks import ALL_LINEAR, PHI3_LORA_MODULES, TINY

if TYPE_CHECKING:
    from options import CommandLine

ADAPTER_CONFIG = "adapter_config.json"  # PEFT's
ORIGIN_FILE = "phi3-adapter.json"  # of which base the adapter is
HASH_BLOCK = 1 << 20  # bytes
# A setting of the recipe's `lora` -> its name in ADAPTER_CONFIG.
PEFT_NAMES = {
    "r": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "target_modules": "target_modules",
    "modules_to_save": "modules_to_save", "rslora": "use_rslora", "dora": "use_dora",
}  # fmt: skip


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


def check_revision(recipe: Recipe, model: str, path: Path) -> None:
    """Check that the recipe's `revision` is one of the model that is trained.

    Args:
        recipe: recipe, before the command line changes it.
        model: model that the command line or the recipe names.
        path: the recipe's file, for error messages.

    Raises:
        TrainError: the model is in a folder, or the command line names another one.
    """
    if recipe.revision is None:
        return
    if is_local_model(model):
        fix = "remove it: a folder, a GGUF file and the tiny model have no revisions"
        raise TrainError(f"the recipe has `revision`, and its model is {model}", path, fix)
    if model != recipe.model:
        problem = f"the recipe's `revision` is one of {recipe.model}, and --model names {model}"
        raise TrainError(problem, path, "remove `revision` or --model")


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
    except (OSError, ValueError, TypeError, RecursionError):
        return {"base": read_adapter_config(adapter).get("base_model_name_or_path")}


def read_adapter_config(adapter: Path) -> dict[str, Any]:
    """Return PEFT's settings of an adapter.

    Raises:
        TrainError: the file is not valid.
    """
    path = adapter / ADAPTER_CONFIG
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
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
        problem = "an adapter cannot be used with the tiny model, which is created for each run"
        raise TrainError(problem, adapter, fix)
    origin, identity = read_origin(adapter), base_identity(recipe.model, commit)
    for key, value in identity.items():
        is_name_only = key == "base" and "base_sha256" in origin.keys() & identity.keys()
        if not is_name_only and origin.get(key, value) != value:
            fix = f"give that base with --model; the adapter's is {origin.get('base', 'unknown')}"
            raise TrainError(f"the adapter is of another base than {recipe.model}", adapter, fix)
    settings = read_adapter_config(adapter)
    for key, value in (recipe.lora or {}).items():
        adapter_value = settings.get(PEFT_NAMES[key])
        if not _is_same_setting(value, adapter_value):
            fix = (
                f"remove lora.{key} from the recipe (the adapter has {json.dumps(adapter_value)}), "
                "or start without --from"
            )
            raise TrainError(f"the adapter has another lora.{key} than the recipe", adapter, fix)


def _is_same_setting(wanted: Any, actual: Any) -> bool:
    """Return whether a setting of the recipe is that of an adapter.

    Args:
        wanted: the recipe's value.
        actual: the adapter's value. PEFT writes the names of the modules instead of ALL_LINEAR, with
            their layers if there are few.
    """
    if isinstance(actual, list):
        names = {str(module).rpartition(".")[2] for module in actual}
        if wanted == ALL_LINEAR:
            return not names < set(PHI3_LORA_MODULES)
        if isinstance(wanted, list):
            return set(wanted) in (names, set(actual))
    # PEFT's files lack settings that are newer than they are; False, 0 and [] are their defaults.
    return (wanted or None) == (actual or None)
