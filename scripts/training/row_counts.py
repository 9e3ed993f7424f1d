"""Count the rows that max_length cuts or drops, since TRL does not count them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inputs import TrainError

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED_LABEL = -100  # TRL's label of a token that is not trained on
# TRL's names of the datasets, and the names that the messages use.
FILES = {"train": "training file", "eval": "evaluation file"}


@dataclass(frozen=True)
class RowCounts:
    """Number of rows that max_length shortens.

    Attributes:
        total: number of rows in the file.
        cut: number of rows that lose their end, or that are split.
        dropped: number of rows that are left out, because no part of an answer is left.
    """

    total: int
    cut: int = 0
    dropped: int = 0

    @property
    def kept(self) -> int:
        """Number of rows that are used."""
        return self.total - self.dropped


@dataclass
class StreamCounts:
    """Number of rows that were read from a stream, and of those that max_length shortens.

    Attributes:
        total, cut, dropped: see RowCounts. A row that is read again counts again.
    """

    total: int = 0
    cut: int = 0
    dropped: int = 0

    def filter(self, max_length: int | None) -> Callable[[Mapping[str, list[int]]], bool]:
        """Return a function that counts a tokenized row, and returns whether it can be trained on.

        It is not a method, because datasets copies the objects of methods.
        """
        counts = self

        def count(row: Mapping[str, list[int]]) -> bool:
            labels = row["labels"]
            is_trainable = any(label != IGNORED_LABEL for label in labels[:max_length])
            counts.total += 1
            counts.dropped += not is_trainable
            counts.cut += is_trainable and max_length is not None and len(labels) > max_length
            return is_trainable

        return count


def drop_untrainable(
    dataset: Dataset, max_length: int | None, is_split: bool
) -> tuple[Dataset, RowCounts]:
    """Return the rows that have a token to train on within max_length, and the counts.

    Args:
        dataset: tokenized rows with `labels`, neither cut nor packed.
        max_length: maximum number of tokens of a row, or None.
        is_split: whether longer rows are split instead of cut.
    """
    if max_length is None:
        return dataset, RowCounts(len(dataset))
    kept, cut = [], 0
    for index, row in enumerate(dataset.select_columns("labels")):
        labels = row["labels"]
        visible = labels if is_split else labels[:max_length]
        if all(label == IGNORED_LABEL for label in visible):
            continue
        kept.append(index)
        cut += len(labels) > max_length
    counts = RowCounts(len(dataset), cut, len(dataset) - len(kept))
    return (dataset.select(kept) if counts.dropped else dataset), counts


def drop_long_prompts(dataset: Dataset, max_length: int | None) -> tuple[Dataset, RowCounts]:
    """Return the preferences of which max_length leaves a part of both answers, and the counts.

    Args:
        dataset: tokenized rows with `prompt_ids`, `chosen_ids` and `rejected_ids`.
        max_length: maximum number of tokens of a prompt with an answer, or None.
    """
    if max_length is None:
        return dataset, RowCounts(len(dataset))
    kept, cut = [], 0
    for index, row in enumerate(dataset):
        prompt, chosen, rejected = (
            len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        )
        if prompt >= max_length:
            continue
        kept.append(index)
        cut += prompt + max(chosen, rejected) > max_length
    counts = RowCounts(len(dataset), cut, len(dataset) - len(kept))
    return (dataset.select(kept) if counts.dropped else dataset), counts


def check(counts: RowCounts, name: str, max_length: int | None, max_cut_share: float) -> None:
    """Check that few enough rows are cut or dropped, and that some are left.

    Args:
        counts: counts of a file's rows.
        name: TRL's name of the dataset.
        max_length: maximum number of tokens of a row, or None.
        max_cut_share: largest share of rows that may be cut or dropped.

    Raises:
        TrainError: more rows are cut or dropped, or all rows are dropped.
    """
    shortened = counts.cut + counts.dropped
    if counts.kept and shortened <= max_cut_share * counts.total:
        return
    raise TrainError(
        f"{shortened} of {counts.total} rows of the {FILES.get(name, name)} are longer than "
        f"max_length {max_length} ({counts.cut} would be cut, and {counts.dropped} dropped because "
        "no part of an answer is left)",
        "trainer.max_length",
        f"raise it, shorten the rows, or raise the recipe's max_cut_share ({max_cut_share:g})",
    )


def describe(counts: Mapping[str, RowCounts], max_length: int | None) -> list[str]:
    """Return one line for each file of which rows are cut or dropped."""
    return [
        f"{FILES.get(name, name)}: max_length {max_length} cuts {count.cut} and drops "
        f"{count.dropped} of {count.total} rows"
        for name, count in counts.items()
        if count.cut or count.dropped
    ]
