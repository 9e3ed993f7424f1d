"""The manifest of prepared data: source, seed, counts, lengths and hashes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .lengths import LengthBin, LengthSummary
from .source_rows import PreferenceColumns, SourceOrigin, TextColumns


@dataclass(frozen=True)
class RowCounts:
    """Numbers of rows.

    Attributes:
        read: all rows of the source: the sum of train, test and rejected.
        train, test, rejected: the rows of these files.
        cut: rows of train and test that were shortened.
        over_long: rows of train and test that have more tokens than the maximum.
    """

    read: int
    train: int
    test: int
    rejected: int
    cut: int
    over_long: int


@dataclass(frozen=True)
class TokenCounts:
    """Lengths of the chats in tokens.

    Attributes:
        counted: how tokens were counted, in words.
        max_tokens: the maximum length; None without a maximum.
        over_long: `drop`, `cut` or `keep`; None without a maximum.
        train, test, all: the lengths of these rows.
        histogram: the lengths of all rows.
    """

    counted: str
    max_tokens: int | None
    over_long: str | None
    train: LengthSummary
    test: LengthSummary
    all: LengthSummary
    histogram: list[LengthBin]


@dataclass(frozen=True)
class DataManifest:
    """What `prepare_data` wrote, and from which source.

    Attributes:
        source: the source.
        source_files: name -> SHA-256 of the source's files; empty for a dataset on the hub.
        seed: seed of the split.
        test_share: share of the rows for testing, between 0 and 1.
        rows: numbers of rows.
        columns: columns of the prompts and the answers; None if rows have `messages`.
        groups: what rows have in common that belong together in the split: `BY_FACT`, `BY_ANSWER` or
            `BY_PROMPT`.
        rejected: reason -> number of rejected rows.
        kinds: kind -> number of rows.
        tokens: lengths in tokens.
        turns: lengths in turns, a turn being a prompt and an answer.
        sha256: name -> SHA-256 of the written files, without the manifest.
    """

    source: SourceOrigin
    source_files: dict[str, str]
    seed: int
    test_share: float
    rows: RowCounts
    columns: TextColumns | None
    groups: str
    rejected: dict[str, int]
    kinds: dict[str, int]
    tokens: TokenCounts
    turns: LengthSummary
    sha256: dict[str, str]

    @property
    def has_preferences(self) -> bool:
        """Whether the rows have two answers, of which one is better."""
        return isinstance(self.columns, PreferenceColumns)

    def to_json(self) -> dict[str, Any]:
        """Return the content of manifest.json."""
        document = asdict(self)
        origin = {name: value for name, value in document["source"].items() if value is not None}
        document["source"] = {**origin, "files": document.pop("source_files")}
        if self.columns:
            document["columns"] = [column for column in self.columns if column is not None]
        document["tokens"]["histogram"] = [list(entry) for entry in self.tokens.histogram]
        return document
