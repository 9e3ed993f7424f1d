"""Training rows that are read while the model trains, for files that are larger than the memory.

The files are read once before the training: each row is checked, counted and hashed, so that a wrong row
is an error before the first step and a resumed run is recognized. The stream itself is an IterableDataset
with `repeat`, `interleave_datasets` and `shuffle`. Source: "Stream" of datasets' documentation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from inputs import Recipe, Row
from mixture import MixedFile, file_names
from small_data import DEFAULT_BATCH

if TYPE_CHECKING:
    from datasets import IterableDataset

SAMPLE_ROWS = (
    1000  # smallest number of rows in the sample of larger files; the largest is twice that
)

ReadRows = Callable[[Path], Iterator[Row]]


@dataclass(frozen=True)
class RowStream:
    """Training rows that stay in their files.

    Attributes:
        paths: the training files.
        files: their names, weights, numbers of rows, and expected numbers of rows of the run.
        read: function that yields the checked rows of a file.
        seed: seed of the order.
        shuffle_buffer: number of rows in memory, among which the order is random.
        digest: hash of the rows and the weights.
        sample: rows evenly spaced over the files.
    """

    paths: Sequence[Path]
    files: Sequence[MixedFile]
    read: ReadRows
    seed: int
    shuffle_buffer: int
    digest: str
    sample: list[Row]

    @property
    def rows(self) -> int:
        """Number of rows in the files."""
        return sum(file.rows for file in self.files)

    def dataset(self) -> IterableDataset:
        """Return the rows without an end: after the last row of a file, its first one follows.

        Without weights, each row comes once before any row comes again, but for the shuffle buffer.
        With weights, each row is taken from a random file.
        """
        from datasets import IterableDataset, interleave_datasets

        weights = [file.weight for file in self.files if file.weight is not None]
        groups = [[path] for path in self.paths] if weights else [list(self.paths)]
        streams = [
            IterableDataset.from_generator(partial(_read_all, self.read, group)).repeat(None)
            for group in groups
        ]
        shares = [weight / sum(weights) for weight in weights]
        stream = interleave_datasets(streams, shares, self.seed) if weights else streams[0]
        return stream.shuffle(self.seed, buffer_size=self.shuffle_buffer)

    def describe(self) -> str:
        """Return a line about what the run reads."""
        used = sum(file.used for file in self.files)
        parts = [f"{file.used:,} of {file.file} ({file.rows:,})" for file in self.files]
        which = f": about {', '.join(parts)}" if len(parts) > 1 else ""
        size = self.shuffle_buffer
        order = f"shuffled within {size:,} rows" if size > 1 else "in the order of the files"
        return f"streaming {self.rows:,} rows; the run reads {used:,} rows{which}, {order}"


def _read_all(read: ReadRows, paths: Sequence[Path]) -> Iterator[Row]:
    for path in paths:
        yield from read(path)


def scan(paths: Sequence[Path], recipe: Recipe, recipe_path: Path, read: ReadRows) -> RowStream:
    """Read the files once and return their stream.

    Args:
        paths: the training files.
        recipe: recipe with `streaming`.
        recipe_path: the recipe's file, for error messages.
        read: function that yields the checked rows of a file.

    Raises:
        TrainError: a row is wrong, a file has no rows, a file has no weight, or a weight has no file.
    """
    streaming, weights = recipe.streaming or {}, recipe.mixture
    names = file_names(paths, weights, recipe_path)
    digest = hashlib.sha256(json.dumps([names, weights] if weights else []).encode())
    sample: list[Row] = []
    stride, total = 1, 0
    files = []
    for name, path in zip(names, paths):
        before = total
        for row in read(path):
            digest.update(json.dumps(row, sort_keys=True).encode())
            if total % stride == 0:
                sample.append(row)
            if len(sample) > 2 * SAMPLE_ROWS:
                sample, stride = sample[::2], 2 * stride
            total += 1
        files.append(MixedFile(name, total - before, 0, weights[name] if weights else None))
    return RowStream(
        paths=paths,
        files=_expect_used(files, recipe.trainer),
        read=read,
        seed=recipe.seed,
        shuffle_buffer=streaming["shuffle_buffer"],
        digest=digest.hexdigest(),
        sample=sample,
    )


def _expect_used(files: Sequence[MixedFile], trainer: Mapping[str, int]) -> list[MixedFile]:
    """Return the files with the expected numbers of rows that the run reads."""
    rows = trainer["max_steps"] * trainer.get("gradient_accumulation_steps", 1)
    rows *= trainer.get("per_device_train_batch_size", DEFAULT_BATCH)
    weights = [file.rows if file.weight is None else file.weight for file in files]
    return [
        replace(file, used=round(rows * weight / sum(weights)))
        for file, weight in zip(files, weights)
    ]
