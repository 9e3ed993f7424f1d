"""What train.py is given, checked before anything heavy starts.

Every problem is a `TrainError`: what is wrong, where, and what to do. None quotes the data.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

TINY = "tiny"  # the name of the base model that tiny.py makes
# Short names of the base models that the recipes were written for.
MODELS = {
    "phi-3-mini-4k": "microsoft/Phi-3-mini-4k-instruct",
    "phi-3.5-mini": "microsoft/Phi-3.5-mini-instruct",
    "phi-4-mini": "microsoft/Phi-4-mini-instruct",
}
ROW_FIX = 'a row is {"messages": [{"role": "user", "content": …}, {"role": "assistant", …}]}'
SECTIONS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "seed": (int,),
    "attention": (str,),
    "save_dtype": (str,),
    "samples": (int,),
    "tiny": (dict,),
    "lora": (dict,),
    "quantization": (str,),
    "fsdp": (dict,),
    "trainer": (dict,),
}
LORA_KEYS = {"r", "alpha", "dropout", "target_modules"}
QUANTIZATIONS = ("nf4",)
SAVE_DTYPES = ("float32", "bfloat16", "float16")
# What decides whether the result is right, or where it goes, is not the recipe's to change.
NOT_FOR_RECIPES = {
    "output_dir", "seed", "data_seed", "report_to", "disable_tqdm", "save_strategy", "use_cpu",
    "bf16", "fp16", "assistant_only_loss", "trust_remote_code", "push_to_hub", "save_total_limit",
    "save_only_model", "ignore_data_skip", "logging_nan_inf_filter", "auto_find_batch_size", "fsdp",
    "fsdp_config", "ddp_backend",
}  # fmt: skip
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class TrainError(Exception):
    """A cause that the user can do something about: what, where, and what to do."""

    def __init__(self, what: str, where: object, fix: str) -> None:
        super().__init__(f"{what}, {where}: {fix}")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    `trainer` holds settings of TRL's SFTConfig as they stand, `fsdp` those of its `fsdp_config`.
    """

    name: str
    model: str
    seed: int
    trainer: dict[str, Any]
    tiny: dict[str, Any]
    lora: dict[str, Any] | None
    attention: str
    save_dtype: str | None
    quantization: str | None = None
    fsdp: dict[str, Any] | None = None
    samples: int = 3  # sample answers an epoch; they quote the evaluation file


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        TrainError: the file is missing or no YAML, or a section or setting is not known.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        fix = "give a recipe such as recipes/tiny-cpu.yaml"
        raise TrainError("cannot read the recipe", path, f"{_reason(error)}; {fix}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path} line {mark.line + 1}" if mark else path
        raise TrainError("the recipe is not YAML", where, "correct it") from error
    problem = _recipe_problem(content)
    if problem:
        raise TrainError(problem, path, "compare with recipes/tiny-cpu.yaml and recipes/lora.yaml")
    return Recipe(
        name=path.stem,
        model=resolve_model(content["model"]),
        seed=content.get("seed", 0),
        trainer=content.get("trainer", {}),
        tiny=content.get("tiny", {}),
        lora=content.get("lora"),
        attention=content.get("attention", "auto"),
        save_dtype=content.get("save_dtype"),
        quantization=content.get("quantization"),
        fsdp=content.get("fsdp"),
        samples=content.get("samples", 3),
    )


def _recipe_problem(content: Any) -> str | None:
    if not isinstance(content, dict) or "model" not in content:
        return "the recipe names no `model`"
    for key, value in content.items():
        if key not in SECTIONS:
            return f"unknown section {key!r} in the recipe"
        if not isinstance(value, SECTIONS[key]):
            return f"the recipe's {key!r} is not {SECTIONS[key][0].__name__}"
    if content.get("save_dtype", SAVE_DTYPES[0]) not in SAVE_DTYPES:
        return f"the recipe's save_dtype is none of {', '.join(SAVE_DTYPES)}"
    if content.get("quantization", QUANTIZATIONS[0]) not in QUANTIZATIONS:
        return f"the recipe's quantization is none of {', '.join(QUANTIZATIONS)}"
    if "quantization" in content and "lora" not in content:
        return (
            "the recipe has `quantization` without `lora`, and quantized weights cannot be trained"
        )
    if "fsdp" in content and "lora" in content:
        return "the recipe has `fsdp` with `lora`, whose base fits every GPU"
    if unknown := sorted(content.get("lora", {}).keys() - LORA_KEYS):
        return f"unknown setting lora.{unknown[0]}"
    if taken := sorted(content.get("trainer", {}).keys() & NOT_FOR_RECIPES):
        return f"trainer.{taken[0]} is train.py's own to set"
    if content["model"] == TINY:
        needed = {"vocab_size", "hidden_size", "max_position_embeddings"}
        if missing := sorted(needed - content.get("tiny", {}).keys()):
            return f"the recipe has no tiny.{missing[0]}"
    return None


def read_rows(path: Path, limit: int | None = None) -> list[Row]:
    """Read a JSONL file's conversations.

    Args:
        path: one JSON object a line, with `messages`; other columns are dropped.
        limit: rows at most, from the start.

    Returns:
        Rows with nothing but `messages`, each of them a role and a content.

    Raises:
        TrainError: the file cannot be read, is empty, or a line (named) is no conversation.
    """
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if limit is not None and len(rows) == limit:
                    break
                if line.strip():
                    rows.append(_row(line, f"{path} line {number}"))
    except OSError as error:
        fix = f"{_reason(error)}; give a JSONL file"
        raise TrainError("cannot read the rows", path, fix) from error
    except UnicodeDecodeError as error:
        raise TrainError("the file is not UTF-8", path, "save it as UTF-8") from error
    if not rows:
        raise TrainError("the file has no rows", path, f"give at least one; {ROW_FIX}")
    return rows


def _row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        # Not chained: the parser's error carries the line's text.
        raise TrainError(f"not JSON ({error.msg})", where, "write one object a line") from None
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise TrainError("no messages", where, ROW_FIX)
    for place, message in enumerate(messages, 1):
        _check_message(message, place, _expected_role(messages, place), where)
    if messages[-1]["role"] != "assistant":
        raise TrainError("the last message is not the assistant's", where, ROW_FIX)
    return {"messages": [{"role": m["role"], "content": m["content"]} for m in messages]}


def _expected_role(messages: list[Any], place: int) -> str:
    """Phi-3's order: perhaps a system message, then user and assistant in turn."""
    first = messages[0]
    has_system = isinstance(first, dict) and first.get("role") == "system"
    if has_system and place == 1:
        return "system"
    return "user" if (place - has_system) % 2 else "assistant"


def _check_message(message: Any, place: int, expected: str, where: str) -> None:
    role = message.get("role") if isinstance(message, dict) else None
    if role != expected:
        raise TrainError(f"message {place} has the wrong role", where, f"it should be {expected!r}")
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        raise TrainError(
            f"message {place} ({role}) has no content", where, "fill it or drop the row"
        )


def resolve_model(name: str) -> str:
    """A model's folder or hub id; short names (`MODELS`) become hub ids."""
    return name if Path(name).is_dir() else MODELS.get(name.lower(), name)


def check_model(model: str) -> None:
    """Check that a model's name can be one, without asking the hub.

    Raises:
        TrainError: a folder that is missing or has no config.json.
    """
    if model == TINY:
        return
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            fix = "give a folder that save_pretrained wrote"
            raise TrainError("the model folder has no config.json", folder, fix)
    elif not HUB_ID.fullmatch(model) or folder.is_absolute():
        fix = f"give a folder, a hub id (owner/name) or one of {', '.join(MODELS)}"
        raise TrainError("no such model folder", folder, fix)


def check_output(path: Path) -> None:
    """Make the output folder.

    Raises:
        TrainError: it cannot be made or written to.
    """
    probe = path / f".partial-{id(path)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        fix = f"{_reason(error)}; give a folder that you may write to"
        raise TrainError("cannot write the output", path, fix) from error


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
