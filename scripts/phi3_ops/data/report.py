"""What `phi3 data` shows of a manifest: a table, and a histogram of lengths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

BAR = 40  # characters of the longest bar


def print_data_report(manifest: dict[str, Any], out: Path, console: Console) -> None:
    """Print what came of a source."""
    rows, tokens = manifest["rows"], manifest["tokens"]
    head = f"{rows['train']} rows to train, {rows['test']} to test, in {out}"
    console.print(head, highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for cells in _lines(manifest, out):
        table.add_row(*cells)
    console.print(table)
    console.print(f"  tokens of a chat ({tokens['counted']})", highlight=False, soft_wrap=True)
    console.print("\n".join(_bars(tokens["histogram"])), highlight=False, soft_wrap=True)


def _lines(manifest: dict[str, Any], out: Path) -> Iterator[tuple[str, str, str]]:
    rows, tokens, source = manifest["rows"], manifest["tokens"], manifest["source"]
    of = [source.get("split"), source.get("revision") and f"revision {source['revision']}"]
    yield "read", f"{rows['read']:,}", " ".join([source["name"], *filter(None, of)])
    for reason, count in manifest["rejected"].items():
        yield f"- {reason}", f"{count:,}", f"see {out / 'rejects.jsonl'}"
    if rows["cut"]:
        yield "cut", f"{rows['cut']:,}", f"to {tokens['max_tokens']:,} tokens at most"
    if rows["over_long"]:
        yield (
            "kept too long",
            f"{rows['over_long']:,}",
            f"more than {tokens['max_tokens']:,} tokens",
        )
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in manifest["kinds"].items() if count)
    yield "train + test", f"{rows['train'] + rows['test']:,}", kinds
    for name, numbers in (("turns", manifest["turns"]), ("tokens", tokens["all"])):
        yield name, f"{numbers['sum']:,}", "p50 {p50:,}, p95 {p95:,}, max {max:,}".format(**numbers)


def _bars(histogram: list[list[int]]) -> Iterator[str]:
    most = max(count for _, _, count in histogram)
    width = max(len(f"{first:,}–{last:,}") for first, last, _ in histogram)
    for first, last, count in histogram:
        bar = "█" * -(-count * BAR // most)
        yield f"  {f'{first:,}–{last:,}':>{width}} {count:>9,} {bar}".rstrip()
