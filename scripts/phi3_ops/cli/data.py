"""`phi3 data`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import paths


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        type=Path,
        default=paths.SAMPLE_DATA,
        metavar="FILE",
        help="JSONL with `messages` (default: the shipped questions and answers)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=paths.WORKDIR / "data",
        metavar="DIR",
        help="folder to write to (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the split (default: %(default)s)")
    parser.add_argument(
        "--test-share",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of the rows, between 0 and 1 (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    from .. import data

    manifest = data.prepare(args.source, args.out, seed=args.seed, test_share=args.test_share)
    rows, kinds = manifest["rows"], manifest["kinds"]
    print(f"{rows['train']} rows to train, {rows['test']} to test, in {args.out}")
    print(", ".join(f"{count} {kind}" for kind, count in kinds.items() if count))
    return 0
