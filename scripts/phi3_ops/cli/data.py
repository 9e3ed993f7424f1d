"""`phi3 data`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import paths
from ..data import OVER_LONG
from ..errors import OpsError
from ._common import console, whole


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        default=str(paths.SAMPLE_DATA),
        metavar="FILE|FOLDER|HUB_ID",
        help="JSONL or Parquet with `messages`, CSV with prompt and answer, a folder of them, or a "
        "dataset on the hub such as HuggingFaceH4/ultrachat_200k (default: the shipped questions "
        "and answers)",
    )
    parser.add_argument(
        "--split",
        metavar="SLICE",
        help="of a dataset on the hub; no more than this is downloaded (default: train_sft[:1%%])",
    )
    parser.add_argument(
        "--revision", help="of a dataset on the hub: branch, tag or commit (default: main)"
    )
    parser.add_argument(
        "--prompt-column", metavar="NAME", help="column of the prompts (default for CSV: prompt)"
    )
    parser.add_argument(
        "--answer-column", metavar="NAME", help="column of the answers (default for CSV: answer)"
    )
    parser.add_argument(
        "--max-tokens", type=whole, metavar="N", help="a chat of more tokens is over-long"
    )
    parser.add_argument(
        "--over-long",
        choices=OVER_LONG,
        help="reject over-long chats, cut their last turns, or keep them (default: drop)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="FOLDER|HUB_ID",
        help="the model's, to count tokens with (default: an estimate)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail on any row that does not pass, write nothing"
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
    from ..data import CSV_COLUMNS, DataOptions, prepare_data, print_data_report

    if args.over_long and args.max_tokens is None:
        raise OpsError("--over-long says nothing without a length", "Give --max-tokens, too.")
    named = args.prompt_column or args.answer_column
    columns = (args.prompt_column or CSV_COLUMNS[0], args.answer_column or CSV_COLUMNS[1])
    options = DataOptions(
        split=args.split,
        revision=args.revision,
        columns=columns if named else None,
        max_tokens=args.max_tokens,
        over_long=args.over_long or OVER_LONG[0],
        tokenizer=args.tokenizer,
        strict=args.strict,
    )
    out = console()
    with out.status(f"reading {args.source}") as status:
        manifest = prepare_data(
            args.source,
            args.out,
            seed=args.seed,
            test_share=args.test_share,
            options=options,
            progress=lambda rows: status.update(f"reading {args.source}: {rows:,} rows"),
        )
    print_data_report(manifest, args.out, out)
    return 0
