"""Mix the rows of several training files by the recipe's weights."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inputs import Row, TrainError


@dataclass(frozen=True)
class MixedFile:
    """A training file among several.

    Attributes:
        file: name of the file, with its folder's name if another file has the same name.
        rows: number of rows in the file.
        used: number of rows of an epoch that are from this file; more than `rows` if rows are repeated.
            With `streaming`, the expected number of rows of the run.
        weight: weight in the recipe's `mixture`, or None without the section.
    """

    file: str
    rows: int
    used: int
    weight: float | None = None


def mix(
    paths: Sequence[Path],
    rows: Sequence[list[Row]],
    weights: Mapping[str, float] | None,
    seed: int,
    recipe: Path,
) -> tuple[list[Row], list[MixedFile]]:
    """Return the rows of an epoch, and the counts of each file if there are several.

    Without weights, each row is used once, in the order of the files. With weights, an epoch has as many
    rows as the files have together, and the weights are the files' shares of it. A file with too many
    rows gives a random part of them; a file with too few rows gives some of them again. The same seed
    gives the same rows in the same order.

    Args:
        paths: the training files.
        rows: the rows of each file.
        weights: weight of each file by its name, or None.
        seed: seed of the random choice.
        recipe: the recipe's file, for error messages.

    Raises:
        TrainError: a file has no weight, or a weight has no file.
    """
    names = file_names(paths, weights, recipe)
    if weights is None:
        counts = [MixedFile(name, len(part), len(part)) for name, part in zip(names, rows)]
        return [row for part in rows for row in part], counts if len(paths) > 1 else []
    total, sum_of_weights = sum(map(len, rows)), sum(weights.values())
    mixed: list[Row] = []
    counts = []
    for name, part in zip(names, rows):
        used = max(1, round(total * weights[name] / sum_of_weights))
        copies, rest = divmod(used, len(part))
        mixed += part * copies + random.Random(f"{seed} {name}").sample(part, rest)  # noqa: S311
        counts.append(MixedFile(name, len(part), used, weights[name]))
    random.Random(seed).shuffle(mixed)  # noqa: S311
    return mixed, counts


def file_names(
    paths: Sequence[Path], weights: Mapping[str, float] | None, recipe: Path
) -> list[str]:
    """Return the files' names, with the folder's name if another file has the same name.

    Raises:
        TrainError: there are weights, and a file has no weight, or a weight has no file.
    """
    names = [path.name for path in paths]
    names = [f"{p.parent.name}/{p.name}" if names.count(p.name) > 1 else p.name for p in paths]
    if weights is not None:
        _check_names(names, weights, recipe)
    return names


def _check_names(names: Sequence[str], weights: Mapping[str, float], recipe: Path) -> None:
    if len(set(names)) < len(names):
        fix = "rename one of them, or give it once"
        raise TrainError("two files of the mixture have the same name", "--train-file", fix)
    for name in names:
        if name not in weights:
            fix = f"add `{name}: 1`, or remove the section"
            raise TrainError(f"the recipe's `mixture` has no weight for {name}", recipe, fix)
    for name in weights:
        if name not in names:
            problem = f"the recipe's `mixture` has {name}, and no --train-file has this name"
            raise TrainError(problem, recipe, "add the file, or remove the line")


def describe(files: Sequence[MixedFile]) -> list[str]:
    """Return one line with the counts of several files, or nothing for one file."""
    counts = ", ".join(f"{file.used} of {file.rows} rows of {file.file}" for file in files)
    return [f"an epoch has {counts}"] if files else []
