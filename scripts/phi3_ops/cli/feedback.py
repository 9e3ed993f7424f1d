"""`phi3 feedback`: its subcommands are the rows of `SUBCOMMANDS`."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OpsError
from ..terminal import agrees, counted, one_line, print_text
from ._common import Subcommand, add_subcommands, add_yes, positive_int, run_subcommand
from ._records import add_json, messages_to_stderr, print_json, print_table

if TYPE_CHECKING:
    from ..feedback import Feedback, FeedbackStore

COLUMNS = ("time", "who", "kind", "conversation", "question", "answer", "details")
# Those of the records, whose module is not imported for the help.
KINDS = ("thumbs_up", "thumbs_down", "edit", "choice", "comment")
LONGEST_CELL = 40  # characters of a text in the table
_TEXTS_LEFT = (
    "phi3 feedback: another process is reading {}, so the deleted texts are still in its files; they are "
    "overwritten when feedback is stored or deleted after that process has ended"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The feedback that users gave on answers in `phi3 serve --feedback`. `phi3 data --feedback` "
        "makes training data from it."
    )
    add_subcommands(parser, SUBCOMMANDS, _add_store)


def run(args: argparse.Namespace) -> int:
    return run_subcommand(args, SUBCOMMANDS)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FILE",
        help="SQLite database of the feedback (default: feedback.sqlite next to the runs)",
    )


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", choices=KINDS, help="only feedback of this kind")
    parser.add_argument("--flow", metavar="NAME", help="only feedback on answers of this flow")
    parser.add_argument(
        "--since",
        type=_time,
        metavar="TIME",
        help="only feedback of this time or later, for example 2026-11-01 or 2026-11-01T14:30",
    )


def _time(text: str) -> str:
    """Parse a time in ISO 8601 for argparse; without a time zone, it is local time."""
    from ..feedback import utc_text

    try:
        return utc_text(datetime.fromisoformat(text))
    except OverflowError:
        message = f"{text!r} is outside the years 1 to 9999 in UTC; use for example 2026-11-01"
        raise argparse.ArgumentTypeError(message) from None
    except ValueError:
        message = f"{text!r} is not a time; use for example 2026-11-01 or 2026-11-01T14:30"
        raise argparse.ArgumentTypeError(message) from None


def _store(file: Path | None) -> FeedbackStore:
    from ..feedback import FeedbackStore, default_store

    return FeedbackStore(file or default_store())


# -- list ------------------------------------------------------------------------------------------


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    _add_filters(parser)
    parser.add_argument("--conversation", metavar="ID", help="only feedback of this conversation")
    parser.add_argument(
        "--last",
        type=positive_int,
        default=20,
        metavar="N",
        help="number of records that are listed (default: %(default)s)",
    )
    add_json(parser)


def _list(args: argparse.Namespace) -> int:
    records = _store(args.store).records(
        kind=args.kind, flow=args.flow, conversation=args.conversation, since=args.since
    )
    latest = records[-args.last :]
    older = len(records) - len(latest)
    if args.json:
        print_json([record.to_json() for record in latest], older=older)
        return 0
    if not records:
        print_text("no feedback")
        return 0
    print_table([_table_row(record) for record in latest], COLUMNS)
    if older:
        print_text(f"{older} older are not listed; --last {len(records)} lists all")
    return 0


def _table_row(record: Feedback) -> dict[str, str]:
    details = record.edited or record.rejected or ""
    if record.comment:
        details = record.comment
    return {
        "time": datetime.fromisoformat(record.time).astimezone().strftime("%Y-%m-%d %H:%M"),
        "who": record.who or "",
        "kind": record.kind,
        "conversation": record.conversation,
        "question": _shortened(record.question),
        "answer": _shortened(record.answer),
        "details": _shortened(details),
    }


def _shortened(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= LONGEST_CELL else f"{line[: LONGEST_CELL - 1]}…"


# -- export and delete -----------------------------------------------------------------------------


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    _add_filters(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="new JSONL file to write"
    )
    add_json(parser)


def _export(args: argparse.Namespace) -> int:
    from ..feedback import export_feedback

    records = _store(args.store).records(kind=args.kind, flow=args.flow, since=args.since)
    export_feedback(records, args.out)
    if args.json:
        print_text(json.dumps({"records": len(records), "file": str(args.out)}))
    else:
        print_text(f"wrote {counted(len(records), 'record')} to {args.out}")
    return 0


def _delete_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--conversation",
        required=True,
        metavar="ID",
        help="conversation whose feedback is deleted; `phi3 feedback list` shows the ids",
    )
    add_yes(parser)
    add_json(parser)


def _delete(args: argparse.Namespace) -> int:
    store = _store(args.store)
    count = len(store.records(conversation=args.conversation))
    conversation = one_line(args.conversation)
    what = f"{counted(count, 'record')} of the conversation {conversation}"
    if not count:
        problem = f"{store.file} has no feedback of the conversation {conversation!r}"
        raise OpsError(problem, "`phi3 feedback list` shows the conversations.")
    with messages_to_stderr(args.json):
        if not args.yes and not agrees(f"Delete {what}?"):
            print_text("nothing was deleted")
            return 1
    deleted = store.delete_conversation(args.conversation)
    if args.json:
        result = {"records": deleted.records, "texts_overwritten": deleted.are_texts_gone}
        print_text(json.dumps(result))
    else:
        records = counted(deleted.records, "record")
        print_text(f"deleted {records} of the conversation {conversation}")
    if not deleted.are_texts_gone:
        print_text(_TEXTS_LEFT.format(store.file), to_stderr=True)
    return 0


SUBCOMMANDS = {
    "list": Subcommand("list the feedback, the newest last", _list_arguments, _list),
    "export": Subcommand("write the feedback to a JSONL file", _export_arguments, _export),
    "delete": Subcommand("delete the feedback of one conversation", _delete_arguments, _delete),
}
