"""The printed report of `phi3 data`."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from phi3_ops.data.lengths import LengthBin, LengthSummary
from phi3_ops.data.manifest import DataManifest, RowCounts, TokenCounts
from phi3_ops.data.report import BAR_WIDTH, print_data_report
from phi3_ops.data.source_rows import SourceOrigin

LENGTHS = LengthSummary(sum=3000, p50=1, p95=20, max=1200)


def report(rows, origin=SourceOrigin("in.jsonl"), rejected=None, columns=None):
    histogram = [LengthBin(0, 999, 80), LengthBin(1000, 1999, 1)]
    manifest = DataManifest(
        source=origin,
        source_files={},
        seed=1,
        test_share=0.2,
        rows=rows,
        columns=columns,
        groups="prompt",
        rejected=rejected or {},
        kinds={"trained": 2, "held-out": 0, "unknown": 1},
        tokens=TokenCounts("estimated", 1000, "keep", *[LENGTHS] * 3, histogram),
        turns=LENGTHS,
        sha256={},
    )
    console = Console(file=io.StringIO(), width=200)
    print_data_report(manifest, Path("out"), console)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_counts_lengths_and_reasons():
    counts = RowCounts(read=1004, train=1000, test=3, rejected=1, cut=2, over_long=3)
    lines = report(counts, rejected={"empty content": 1})
    assert lines[0] == "1000 rows to train, 3 to test, in out"
    for line in (
        "read 1,004 in.jsonl",
        "- empty content 1 see out/rejects.jsonl",
        "cut 2 to 1,000 tokens at most",
        "kept too long 3 more than 1,000 tokens",
        "train + test 1,003 2 trained, 1 unknown",
        "turns 3,000 p50 1, p95 20, max 1,200",
        "tokens of a chat (estimated)",
        f"0–999 80 {'█' * BAR_WIDTH}",
        "1,000–1,999 1 █",
    ):
        assert line in lines


def test_rows_without_cuts_do_not_mention_them():
    lines = report(RowCounts(read=3, train=2, test=1, rejected=0, cut=0, over_long=0))
    assert not any(line.startswith(("cut", "kept", "-")) for line in lines)


def test_a_dataset_on_the_hub_is_named_with_split_and_revision():
    counts = RowCounts(read=3, train=2, test=1, rejected=0, cut=0, over_long=0)
    lines = report(counts, SourceOrigin("owner/name", "abc", "train[:1%]"))
    assert "read 3 owner/name train[:1%] revision abc" in lines
