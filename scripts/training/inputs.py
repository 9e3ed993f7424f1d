"""Read and check the inputs of train.py before the slow imports start.

Every problem is a `TrainError` that says what is wrong, where, and what to do. No error quotes the data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tool_rows
from recipe_checks import SFT, TINY, find_problem
from recipe_targets import HUB_ID, MLFLOW

Row = dict[str, Any]
Item = TypeVar("Item")

SMOLLM2 = "smollm2"  # `phi3` fetches and converts it, and gives train.py its folder
# Short names of the base models that the recipes were written for.
MODELS = {
    "phi-3-mini-4k": "microsoft/Phi-3-mini-4k-instruct",
    "phi-3.5-mini": "microsoft/Phi-3.5-mini-instruct",
    "phi-4-mini": "microsoft/Phi-4-mini-instruct",
}
TOOLS_FIX = "correct the row; `phi3 data` lists the rows whose tools are wrong"
ROW_FIX = 'a row is {"messages": [{"role": "user", "content": …}, {"role": "assistant", …}]}'
MAX_RECIPE_BYTES = 1 << 20
MAX_RECIPE_DEPTH = 20
MAX_LINE_CHARACTERS = 1 << 24  # of a JSONL file; a longer line would fill the memory


class TrainError(Exception):
    """An error that the user can fix.

    Args:
        problem: what is wrong.
        location: the file, folder, model or setting that is wrong.
        fix: what to do about it.
    """

    def __init__(self, problem: str, location: object, fix: str) -> None:
        super().__init__(f"{problem}, {location}: {fix}")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes:
        name: file name of the recipe, without its suffix.
        model: folder or hub id of the base model, or `TINY`.
        revision: branch, tag or commit of a base on the hub, or None for its main branch.
        method: `sft` (rows are conversations) or `dpo` (rows are preferences; see preferences.py).
        seed: seed of every random choice.
        trainer: settings of TRL's SFTConfig or DPOConfig, unchanged.
        tiny: settings of the tiny base model.
        lora: settings of the adapters (`LORA_TYPES`), or None to train all weights.
        merge: whether the adapters are merged into the base, for model/ and mlflow/.
        attention: attention implementation, or "auto".
        save_dtype: data type of the saved weights, or None for float32.
        quantization: quantization of the base model under LoRA, or None.
        fsdp: settings of transformers' `fsdp_config`, or None for a full copy in each process.
        samples: number of sample answers at each evaluation; they quote the evaluation file.
        max_cut_share: largest share of a file's rows that max_length may cut or drop.
        trained_layers: number of the last layers that are trained, or None to train all weights.
        rows_per_sequence: average number of rows in a sequence of a batch; see batches.py.
        small_data: how long few rows are trained on (`SMALL_DATA_KEYS`), or None; see small_data.py.
        early_stopping: when to stop before the last step (`EARLY_STOPPING_TYPES`), or None; see
            early_stopping.py.
        mixture: weight of each training file by its name, or None to use each row once; see mixture.py.
        streaming: how the rows are read while the model trains (`STREAMING_KEYS`), or None to read them
            into memory before; see row_stream.py.
        report_to: trackers that get the run's metrics (`TRACKERS`); see trackers.py.
        use_kernels: whether the base's layers use the kernels of the hub; needs a GPU.
        push_to_hub: whether the result is pushed to the hub at the end; see hub.py.
        hub_model_id: repository on the hub (owner/name), or None.
        hub_private: whether that repository is private.
    """

    name: str
    model: str
    method: str = SFT
    seed: int = 0
    trainer: dict[str, Any] = field(default_factory=dict)
    tiny: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] | None = None
    merge: bool = True
    attention: str = "auto"
    save_dtype: str | None = None
    quantization: str | None = None
    fsdp: dict[str, Any] | None = None
    samples: int = 3
    max_cut_share: float = 0.1
    trained_layers: int | None = None
    rows_per_sequence: int = 1
    small_data: dict[str, int] | None = None
    early_stopping: dict[str, Any] | None = None
    revision: str | None = None
    mixture: dict[str, float] | None = None
    streaming: dict[str, int] | None = None
    report_to: list[str] = field(default_factory=lambda: [MLFLOW])
    use_kernels: bool = False
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private: bool = True


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    It does not use TRL's parser, which imports torch for SFTConfig, has no sections, and answers a wrong
    value with its usage text and the value instead of the file.

    Raises:
        TrainError: the file cannot be read or is not YAML, or a section or setting is wrong.
    """
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(MAX_RECIPE_BYTES + 1).decode("utf-8-sig")
        check_yaml_size(text)
        content = yaml.safe_load(text)
    except OSError as error:
        fix = "give a recipe such as recipes/tiny-cpu.yaml"
        raise TrainError("cannot read the recipe", path, f"{_reason(error)}; {fix}") from error
    except (
        yaml.YAMLError,
        ValueError,
    ) as error:  # ValueError: not UTF-8, or a date in the 13th month
        mark = getattr(error, "problem_mark", None)
        location = f"{path} line {mark.line + 1}" if mark else path
        raise TrainError("the recipe is not valid YAML", location, "correct it") from error
    problem = find_problem(content)
    if problem:
        raise TrainError(problem, path, "compare with recipes/tiny-cpu.yaml and recipes/lora.yaml")
    return Recipe(name=path.stem, **{**content, "model": resolve_model(content["model"])})


def check_yaml_size(text: str) -> None:
    """Check that a YAML text cannot unfold to more than it spells out, and that it is not deep.

    Raises:
        yaml.YAMLError: it is too large, has an alias, is nested too deeply, or is not valid YAML.
    """
    import yaml

    if len(text.encode()) > MAX_RECIPE_BYTES:
        raise yaml.YAMLError("the text is too large")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > MAX_RECIPE_DEPTH:
            problem = "it has an alias, or is nested too deeply"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def read_rows(
    path: Path,
    limit: int | None = None,
    tool_format: str = tool_rows.GENERIC,
    parse: Callable[[Any, str, str], Row] | None = None,
) -> list[Row]:
    """Read the rows of a JSONL file.

    Args:
        path: file with one JSON object per line; columns other than `messages` and `tools` are dropped.
        limit: maximum number of rows, counted from the start.
        tool_format: format in which tools, calls and results are written into the messages.
        parse: function that checks a parsed line; None reads conversations (`parse_chat`).

    Returns:
        Checked rows. Conversations have only `messages`, a list of messages with a role and a content.

    Raises:
        TrainError: the file cannot be read or is empty, or a line is not a row. The error gives the
            line's number.
    """
    return list(iterate_rows(path, limit, tool_format, parse))


def iterate_rows(
    path: Path,
    limit: int | None = None,
    tool_format: str = tool_rows.GENERIC,
    parse: Callable[[Any, str, str], Row] | None = None,
) -> Iterator[Row]:
    """Yield what `read_rows` returns; only one row is in memory at a time."""
    count = 0
    try:
        with path.open(encoding="utf-8") as file:
            lines = iter(lambda: file.readline(MAX_LINE_CHARACTERS + 1), "")
            for number, line in enumerate(lines, 1):
                if limit is not None and count == limit:
                    break
                if line.strip():
                    location = f"{path} line {number}"
                    row = _parse_line(line, location)
                    count += 1
                    yield (parse or parse_chat)(row, location, tool_format)
    except OSError as error:
        fix = f"{_reason(error)}; give a JSONL file"
        raise TrainError("cannot read the rows", path, fix) from error
    except UnicodeDecodeError as error:
        raise TrainError("the file is not UTF-8", path, "save it as UTF-8") from error
    if not count:
        raise TrainError("the file has no rows", path, f"give at least one; {ROW_FIX}")


def _parse_line(line: str, location: str) -> Any:
    if len(line) > MAX_LINE_CHARACTERS:
        problem = f"the line is longer than {MAX_LINE_CHARACTERS:,} characters"
        raise TrainError(problem, location, "write one object per line")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        # The parser's error contains the line's text, so it is not chained.
        reason = getattr(
            error, "msg", "it is nested too deeply, or has a number of too many digits"
        )
        problem = f"the line is not valid JSON ({reason})"
        raise TrainError(problem, location, "write one object per line") from None


def parse_chat(row: Any, location: str, tool_format: str = tool_rows.GENERIC) -> Row:
    """Return a checked conversation that has only `messages`.

    Args:
        row: parsed line.
        location: file and line, for errors.
        tool_format: format in which tools, calls and results are written into the messages.

    Raises:
        TrainError: the row is not a conversation that ends with an answer.
    """
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise TrainError("the row has no messages", location, ROW_FIX)
    for position, message in enumerate(messages, 1):
        _check_message(message, position, _expected_role(messages, position), location)
    if problem := tool_rows.find_problem(messages, row.get("tools")):
        raise TrainError(problem, location, TOOLS_FIX)
    if messages[-1]["role"] != "assistant":
        raise TrainError("the last message is not the assistant's", location, ROW_FIX)
    plain = tool_rows.write_row(row, tool_format)
    added = len(plain["messages"]) > len(messages)  # a system message with the tools
    for position, message in enumerate(plain["messages"], 0 if added else 1):
        if any("\ud800" <= character <= "\udfff" for character in message["content"]):
            role = message["role"]
            problem = f"message {position} ({role}) has a character that cannot be saved as UTF-8"
            raise TrainError(problem, location, "remove the half of a surrogate pair from it")
    return plain


def _expected_role(messages: list[Any], position: int) -> str:
    """Return the role of the message at a position, from 1.

    After an optional system message, user and assistant take turns. Results follow an assistant's calls.
    """
    message = messages[position - 1]
    role = message.get("role") if isinstance(message, dict) else None
    previous = messages[position - 2] if position > 1 else {"role": "system"}
    if position == 1 and role == "system":
        return "system"
    if previous.get("tool_calls") or (previous["role"] == "tool" and role == "tool"):
        return "tool"
    return "assistant" if previous["role"] in ("user", "tool") else "user"


def _check_message(message: Any, position: int, expected_role: str, location: str) -> None:
    role = message.get("role") if isinstance(message, dict) else None
    if role != expected_role:
        fix = f"the role should be {expected_role!r}"
        raise TrainError(f"message {position} has the wrong role", location, fix)
    content = message.get("content")
    if role == "assistant" and message.get("tool_calls") and content is None:
        return
    may_be_empty = role == "tool" or bool(message.get("tool_calls"))
    if not isinstance(content, str) or not (content.strip() or may_be_empty):
        problem = f"message {position} ({role}) has no content"
        raise TrainError(problem, location, "add the content or remove the row")


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Return up to `count` items, evenly spaced from the first to the last."""
    count = min(count, len(items))
    if count < 2:
        return list(items[:count])
    return [items[index * (len(items) - 1) // (count - 1)] for index in range(count)]


def resolve_model(name: str) -> str:
    """Return a model's folder or hub id; short names (`MODELS`) become hub ids."""
    return name if Path(name).is_dir() else MODELS.get(name.lower(), name)


def is_local_model(model: str) -> bool:
    """Return whether a model can be loaded without the hub."""
    return model == TINY or Path(model).is_dir()


def check_model(model: str) -> None:
    """Check that a model's name is valid, without a request to the hub.

    Raises:
        TrainError: the folder does not exist or has no config.json.
    """
    if model == TINY:
        return
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            fix = "give a folder that save_pretrained wrote"
            raise TrainError("the model folder has no config.json", folder, fix)
    elif model.lower() == SMOLLM2:
        fix = "run `phi3 finetune --local`, which fetches it, or give its folder with --model"
        raise TrainError("the model is not on the hub in this form", model, fix)
    elif not HUB_ID.fullmatch(model) or folder.is_absolute():
        fix = f"give a folder, a hub id (owner/name) or one of {', '.join(MODELS)}"
        raise TrainError("the model folder does not exist", folder, fix)


def check_output(path: Path) -> None:
    """Create the output folder and check that it can be written to.

    Raises:
        TrainError: the folder cannot be created or written to.
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
