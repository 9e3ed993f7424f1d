"""Print the result of `phi3 data`: a table, and a histogram of the lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..terminal import counted
from .lengths import LengthBin
from .manifest import DataManifest

if TYPE_CHECKING:
    from rich.console import Console

BAR_WIDTH = 40  # characters of the longest bar


def print_data_report(manifest: DataManifest, out: Path, console: Console) -> None:
    """Print the numbers of rows, their lengths and the reasons for rejections.

    Args:
        manifest: what was written.
        out: folder that it was written to.
        console: console to print to.
    """
    from rich import box  # here, because `phi3 data --help` imports this module
    from rich.table import Table

    head = f"{counted(manifest.rows.train, 'row')} to train, {manifest.rows.test} to test, in {out}"
    console.print(head, highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for cells in _table_rows(manifest, out):
        table.add_row(*cells)
    console.print(table)
    title = f"  tokens of a chat ({manifest.tokens.counted})"
    console.print(title, highlight=False, soft_wrap=True)
    bars = _histogram_lines(manifest.tokens.histogram)
    console.print("\n".join(bars), highlight=False, soft_wrap=True)


def _table_rows(manifest: DataManifest, out: Path) -> Iterator[tuple[str, str, str]]:
    rows, tokens, source = manifest.rows, manifest.tokens, manifest.source
    revision = f"revision {source.revision}" if source.revision else None
    yield "read", f"{rows.read:,}", " ".join(filter(None, (source.name, source.split, revision)))
    if manifest.columns:
        yield "columns", "", " → ".join(filter(None, manifest.columns[:2]))
    for reason, count in manifest.rejected.items():
        yield f"- {reason}", f"{count:,}", f"see {out / 'rejects.jsonl'}"
    if rows.cut:
        yield "cut", f"{rows.cut:,}", f"to {tokens.max_tokens:,} tokens at most"
    if rows.over_long:
        yield "kept too long", f"{rows.over_long:,}", f"more than {tokens.max_tokens:,} tokens"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in manifest.kinds.items() if count)
    yield "train + test", f"{rows.train + rows.test:,}", kinds
    for name, lengths in (("turns", manifest.turns), ("tokens", tokens.all)):
        percentiles = f"p50 {lengths.p50:,}, p95 {lengths.p95:,}, max {lengths.max:,}"
        yield name, f"{lengths.sum:,}", percentiles


def _histogram_lines(histogram: Sequence[LengthBin]) -> Iterator[str]:
    most = max(entry.total for entry in histogram)
    labels = [f"{entry.first:,}–{entry.last:,}" for entry in histogram]
    width = max(map(len, labels))
    for label, entry in zip(labels, histogram):
        bar = "█" * -(-entry.total * BAR_WIDTH // most)
        yield f"  {label:>{width}} {entry.total:>9,} {bar}".rstrip()
