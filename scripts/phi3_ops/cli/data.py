"""`phi3 data`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from .. import paths
from ..data import OVER_LONG
from ..errors import OpsError
from ..progress import waiting
from ..terminal import console, print_text
from ._columns import add_columns, chosen_columns, naming_columns
from ._common import integer, number, positive_int
from ._data_corrections import add_correction_arguments, makes_corrections, run_corrections
from ._data_documents import add_document_arguments, run_documents
from ._next_step import after_data

DEFAULT_OUT = paths.WORKDIR / "data"
DEFAULT_SEED, DEFAULT_SHARE = 1, 0.2
# Options that belong to one kind of source each; without them, each is None, False or empty.
_SOURCE_OPTIONS = (
    *("source", "split", "revision", "prompt_column", "answer_column", "seed", "test_share"),
    *("max_tokens", "over_long", "tokenizer", "strict"),
)
_CORRECTION_OPTIONS = ("against", "metric", "run_data")
_DOCUMENT_OPTIONS = (
    *("connection", "judge", "questions", "passage_characters", "refusal"),
    *("max_new_tokens", "max_calls", "in_flight"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Read chats, check each of them, split them into training and test data, and write files that "
        "`phi3 finetune` accepts. With --feedback, --review or --run, make training data from what "
        "people corrected; with --from-docs, from documents."
    )
    parser.add_argument(
        "--source",
        metavar="FILE|FOLDER|HUB_ID",
        help="CSV, JSON, JSONL or Parquet file with columns of questions and answers, JSON, JSONL or "
        "Parquet file with `messages`, folder of such files, or dataset on the hub such as "
        "HuggingFaceH4/ultrachat_200k (default: the questions and answers of this package)",
    )
    parser.add_argument(
        "--split",
        metavar="SLICE",
        help="slice of a dataset on the hub; only this part is downloaded (default: train_sft[:1%%])",
    )
    parser.add_argument(
        "--revision", help="branch, tag or commit of a dataset on the hub (default: main)"
    )
    add_columns(parser)
    _add_check_options(parser)
    _add_output_options(parser)


def _add_check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-tokens",
        type=positive_int,
        metavar="N",
        help="maximum length of a chat in tokens; a longer chat is over-long",
    )
    parser.add_argument(
        "--over-long",
        choices=OVER_LONG,
        help="what happens to over-long chats: reject them, cut their last turns, or keep them "
        "(default: drop)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="FOLDER|HUB_ID",
        help="tokenizer of the model, to count tokens exactly (default: an estimate)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail and write nothing if a row does not pass the checks",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder to write to (default: .phi3/data; with corrections: .phi3/corrections); with "
        "--from-docs, the file of the rows (default: .phi3/documents/rows.jsonl)",
    )
    parser.add_argument("--seed", type=integer, help=f"seed of the split (default: {DEFAULT_SEED})")
    parser.add_argument(
        "--test-share",
        type=number,
        metavar="SHARE",
        help=f"share of the rows for testing, between 0 and 1 (default: {DEFAULT_SHARE})",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the content of manifest.json instead of a report"
    )
    add_correction_arguments(parser)
    add_document_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.from_docs:
        correction_options = ("feedback", "review", "lost_runs", *_CORRECTION_OPTIONS)
        _refuse(args, (*_SOURCE_OPTIONS, *correction_options), "--from-docs")
        return run_documents(args)
    if makes_corrections(args):
        _refuse(args, (*_SOURCE_OPTIONS, *_DOCUMENT_OPTIONS), "--feedback, --review and --run")
        return run_corrections(args)
    _refuse(args, (*_CORRECTION_OPTIONS, *_DOCUMENT_OPTIONS, "test"), "--source")
    return _prepare(args)


def _refuse(args: argparse.Namespace, options: Sequence[str], with_what: str) -> None:
    """Raise OpsError if an option of another kind of source is given."""
    for option in options:
        value = getattr(args, option)
        if value is not None and value is not False and value != []:
            name = "run" if option == "lost_runs" else option.replace("_", "-")
            raise OpsError(f"--{name} has no effect with {with_what}", "Leave it out.")


def _prepare(args: argparse.Namespace) -> int:
    from ..data import DataOptions, prepare_data, print_data_report

    if args.over_long and args.max_tokens is None:
        raise OpsError("--over-long has no effect without --max-tokens", "Give --max-tokens, too.")
    options = DataOptions(
        split=args.split,
        revision=args.revision,
        columns=chosen_columns(args.prompt_column, args.answer_column),
        max_tokens=args.max_tokens,
        over_long=args.over_long or OVER_LONG[0],
        tokenizer=args.tokenizer,
        strict=args.strict,
    )
    source = str(paths.SAMPLE_DATA) if args.source is None else args.source
    out = args.out or DEFAULT_OUT
    screen = console(to_stderr=args.json)
    command = ["data", "--source", source]
    with naming_columns(command), waiting(screen, f"reading {source}") as elapsed:
        manifest = prepare_data(
            source,
            out,
            seed=DEFAULT_SEED if args.seed is None else args.seed,
            test_share=DEFAULT_SHARE if args.test_share is None else args.test_share,
            options=options,
            progress=lambda rows: elapsed.change(f"reading {source}: {rows:,} rows"),
        )
    if args.json:
        print_text(json.dumps(manifest.to_json(), indent=2))
        return 0
    print_data_report(manifest, out, screen)
    after_data(out, are_preferences=manifest.has_preferences)
    return 0
