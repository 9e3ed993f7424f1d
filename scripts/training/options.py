"""The command line of train.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from checkpoints import RESUMING_COMMAND
from inputs import MODELS, Recipe, TrainError, resolve_model
from recipe_checks import TINY, tiny_problem
from start import check_revision, find_start


@dataclass(frozen=True)
class CommandLine:
    """The parsed command line; its attributes are the options."""

    recipe: Path
    train_files: Sequence[Path]
    eval_file: Path
    output_dir: Path
    checkpoint_dir: Path
    general_file: Path | None = None
    model: str | None = None
    start_from: Path | None = None
    merge: bool | None = None
    seed: int | None = None
    epochs: float | None = None
    rows: int | None = None
    resume: bool = False
    resume_if_same: bool = False
    show_mask: bool = False
    estimate: bool = False
    machine: str | None = None
    verbose: bool = False

    @property
    def resuming_command(self) -> str:
        """How to continue a stopped run, in words."""
        return "the same command" if self.resume_if_same else RESUMING_COMMAND


def parse(arguments: Sequence[str] | None, description: str) -> CommandLine:
    """Parse the command line; exit with code 2 if it is wrong."""
    parser = argparse.ArgumentParser(description=description, prog="train.py", allow_abbrev=False)
    parser.add_argument(
        "--recipe", type=Path, required=True, help="YAML file, for example recipes/lora.yaml"
    )
    parser.add_argument(
        "--train-file",
        dest="train_files",
        type=Path,
        action="append",
        required=True,
        metavar="TRAIN_FILE",
        help="JSONL file whose rows have `messages`; several options give several files, which the "
        "recipe's `mixture` weighs",
    )
    parser.add_argument(
        "--eval-file", type=Path, required=True, help="JSONL file for the evaluation loss"
    )
    parser.add_argument(
        "--general-file",
        type=Path,
        help="JSONL file with chats unlike the training rows; their loss and answers before and after "
        "the training show what the model forgot",
    )
    parser.add_argument(
        "--output-dir", type=Path, required=True, help="folder for model/, mlflow/ and metrics.json"
    )
    parser.add_argument(
        "--model",
        help=f"base model instead of the recipe's: {', '.join(MODELS)}, a folder or a hub id",
    )
    parser.add_argument(
        "--from",
        dest="start_from",
        type=Path,
        metavar="DIR",
        help="start from the result of an earlier run: its output folder, a model folder or an adapter "
        "folder. An adapter is trained further, and needs the base that it was trained on",
    )
    parser.add_argument(
        "--merge",
        type=yes_or_no,
        metavar="yes|no",
        help="whether the adapters are merged into the base, for model/ and mlflow/ (default: the "
        "recipe's, which is yes); adapter/ is written in both cases",
    )
    parser.add_argument("--seed", type=int, help="seed instead of the recipe's")
    parser.add_argument(
        "--epochs", type=positive(float), help="number of epochs instead of the recipe's"
    )
    parser.add_argument("--rows", type=positive(int), help="use the first N rows of each file")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the latest checkpoint, if one exists"
    )
    parser.add_argument(
        "--resume-if-same",
        action="store_true",
        help="continue from the latest checkpoint if it is of the same model, recipe, training file and "
        "number of processes, and otherwise start from the base model",
    )
    parser.add_argument(
        "--checkpoint-dir",
        type=Path,
        help="folder for checkpoints (default: checkpoints/ in the output folder); several machines "
        "need a folder that all of them can read and write",
    )
    parser.add_argument(
        "--show-mask",
        action="store_true",
        help="print the first row's tokens and which of them are trained on, then exit",
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="print the memory and the time that the training needs as JSON, then exit",
    )
    parser.add_argument(
        "--machine",
        metavar="NAME",
        help="with --estimate: size of Azure or card, such as Standard_NC24ads_A100_v4 or H100 (default: "
        "this machine)",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print the libraries' messages and tracebacks"
    )
    args = parser.parse_args(arguments)
    args.checkpoint_dir = args.checkpoint_dir or args.output_dir / "checkpoints"
    return CommandLine(**vars(args))


def yes_or_no(text: str) -> bool:
    """Convert `yes` and `no`; an argparse type."""
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is not yes or no")
    return text == "yes"


def positive(number_type: type[int] | type[float]) -> Callable[[str], float]:
    """Return an argparse type that accepts numbers above 0."""
    noun = "a whole number" if number_type is int else "a number"

    def convert(text: str) -> float:
        try:
            value = number_type(text)
        except ValueError:
            value = number_type(0)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} above 0")
        return value

    return convert


def override(recipe: Recipe, options: CommandLine) -> Recipe:
    """Return the recipe with the command line's values instead of its own.

    Raises:
        TrainError: the recipe has no settings for the tiny model that the command line names, no
            adapters that --merge or --from could mean, or no epochs that --epochs could change.
    """
    trainer = dict(recipe.trainer)
    if options.epochs is not None and recipe.streaming is not None:
        fix = "change trainer.max_steps in the recipe"
        raise TrainError("--epochs has no effect with `streaming`", options.recipe, fix)
    if options.epochs is not None:
        trainer["num_train_epochs"] = options.epochs
        trainer.pop("max_steps", None)  # the Trainer would ignore the epochs
    start = find_start(options)
    if (start.adapter or options.merge is not None) and recipe.lora is None:
        option = "--from" if start.adapter else "--merge"
        fix = "use a recipe with a section `lora`"
        raise TrainError(f"{option} needs a recipe with adapters", options.recipe, fix)
    model = start.model or options.model
    model = recipe.model if model is None else resolve_model(model)
    check_revision(recipe, model, options.recipe)
    merge = recipe.merge if options.merge is None else options.merge
    seed = recipe.seed if options.seed is None else options.seed
    if model == TINY and (problem := tiny_problem(asdict(recipe))):
        raise TrainError(problem, options.recipe, "use recipes/tiny-cpu.yaml with --model tiny")
    tiny = recipe.tiny if model == TINY else {}
    return replace(recipe, trainer=trainer, model=model, seed=seed, tiny=tiny, merge=merge)
