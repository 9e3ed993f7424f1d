"""The result of a benchmark: our figures beside a peer's, printed as a table and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Row:
    """Our figure, a peer's figure, and the limit of their ratio.

    Attributes:
        limit: the ratio, ours divided by the peer's, must be at least this if `more` is true, and at
            most this otherwise; None sets no limit.
    """

    name: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    limit: float | None = None
    more: bool = False
    ratio: float = 0.0

    def __post_init__(self) -> None:
        self.ratio = round(self.ours / self.peer, 3)
        self.ours, self.peer = round(self.ours, 3), round(self.peer, 3)

    @property
    def missed(self) -> bool:
        if self.limit is None:
            return False
        return self.ratio < self.limit if self.more else self.ratio > self.limit


def report(rows: Sequence[Row], file: Path | None) -> int:
    """Print the table and write the rows to a file, if one is given.

    Returns:
        1 if a limit was missed, else 0.
    """
    name = max((len(row.name) for row in rows), default=0)
    peer = max((len(row.peer_name) for row in rows), default=0)
    if rows:
        print(f"{'':{name}} {'unit':10} {'ours':>9} {'peer':>9}  {'':{peer}} {'ratio':>8}  limit")
    for row in rows:
        sign = "at least" if row.more else "at most"
        limit = "" if row.limit is None else f"{sign} {row.limit:g}"
        print(
            f"{row.name:{name}} {row.unit:10} {row.ours:9.1f} {row.peer:9.1f}  {row.peer_name:{peer}} "
            f"{row.ratio:8.3f}  {limit}{' MISSED' if row.missed else ''}"
        )
    if file:
        file.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    return int(any(row.missed for row in rows))
