"""manifest.json: the fields are those that other commands and people read."""

from __future__ import annotations

import json

from phi3_ops.data.lengths import LengthBin, LengthSummary
from phi3_ops.data.manifest import DataManifest, RowCounts, TokenCounts
from phi3_ops.data.source_rows import SourceOrigin

LENGTHS = LengthSummary(sum=3, p50=1, p95=2, max=2)
LENGTHS_JSON = {"sum": 3, "p50": 1, "p95": 2, "max": 2}


def make_manifest(origin=SourceOrigin("in.jsonl"), files=None, columns=None):
    return DataManifest(
        source=origin,
        source_files=files or {},
        seed=1,
        test_share=0.2,
        rows=RowCounts(read=4, train=2, test=1, rejected=1, cut=0, over_long=0),
        columns=columns,
        groups="prompt",
        rejected={"empty content": 1},
        kinds={"trained": 2, "held-out": 0, "unknown": 1},
        tokens=TokenCounts("estimated", 9, "cut", *[LENGTHS] * 3, [LengthBin(1, 2, 3)]),
        turns=LENGTHS,
        sha256={"train.jsonl": "0"},
    )


def test_the_whole_document():
    document = make_manifest(files={"in.jsonl": "1"}).to_json()
    assert (
        json.loads(json.dumps(document))
        == document
        == {
            "source": {"name": "in.jsonl", "files": {"in.jsonl": "1"}},
            "seed": 1,
            "test_share": 0.2,
            "rows": {"read": 4, "train": 2, "test": 1, "rejected": 1, "cut": 0, "over_long": 0},
            "columns": None,
            "groups": "prompt",
            "rejected": {"empty content": 1},
            "kinds": {"trained": 2, "held-out": 0, "unknown": 1},
            "tokens": {
                "counted": "estimated",
                "max_tokens": 9,
                "over_long": "cut",
                "train": LENGTHS_JSON,
                "test": LENGTHS_JSON,
                "all": LENGTHS_JSON,
                "histogram": [[1, 2, 3]],
            },
            "turns": LENGTHS_JSON,
            "sha256": {"train.jsonl": "0"},
        }
    )


def test_a_dataset_on_the_hub_has_revision_and_split():
    document = make_manifest(SourceOrigin("owner/name", "abc", "train[:1%]")).to_json()
    assert document["source"] == {
        "name": "owner/name",
        "revision": "abc",
        "split": "train[:1%]",
        "files": {},
    }
