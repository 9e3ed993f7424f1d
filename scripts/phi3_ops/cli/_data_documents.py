"""`phi3 data --from-docs`: training data from documents, with questions and answers by a teacher."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..errors import OpsError
from ..installation import install_command
from ..progress import LINE_EVERY_S, TimeLeft
from ..terminal import console, counted, print_text
from ._common import positive_int
from ._next_step import print_next

if TYPE_CHECKING:
    from rich.console import Console

    from ..documents import DocumentData, DocumentFiles, Progress

DEFAULT_OUT = paths.WORKDIR / "documents" / "rows.jsonl"


def add_document_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that make training data from documents."""
    group = parser.add_argument_group("from documents; see docs/data-from-documents.md")
    group.add_argument(
        "--from-docs",
        type=Path,
        metavar="DIR",
        help="make rows from the Markdown, HTML, PDF, DOCX and text files in this folder",
    )
    group.add_argument(
        "--connection",
        metavar="NAME",
        help="connection of the teacher: the model that writes questions and answers",
    )
    group.add_argument(
        "--judge",
        metavar="NAME",
        help="connection of the model that judges whether a passage supports an answer (default: the "
        "teacher)",
    )
    group.add_argument(
        "--questions",
        type=positive_int,
        metavar="N",
        help="maximum number of questions with an answer per passage (default: 3)",
    )
    group.add_argument(
        "--passage-characters",
        type=positive_int,
        metavar="N",
        help="maximum number of characters of a passage (default: 1600)",
    )
    group.add_argument(
        "--refusal",
        type=_refusal,
        metavar="TEXT",
        help="answer to questions that the documents do not answer",
    )
    group.add_argument(
        "--max-new-tokens",
        type=positive_int,
        metavar="N",
        help="maximum number of tokens of an answer with questions (default: 220 for each "
        "question plus 160)",
    )
    group.add_argument(
        "--max-calls",
        type=positive_int,
        metavar="N",
        help="maximum number of calls of this run with their retries, which the last calls may exceed; "
        "run the command again to go on (default: no maximum)",
    )
    group.add_argument(
        "--in-flight",
        type=positive_int,
        metavar="N",
        help="maximum number of calls at once (default: 4)",
    )


def _refusal(text: str) -> str:
    """Parse the answer to unanswerable questions for argparse."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the text is empty; leave the option out for the default")
    return text


def run_documents(args: argparse.Namespace) -> int:
    """Make, write and report training data from documents.

    Returns:
        0 if everything was asked and judged, 1 if passages or verdicts are left.
    """
    from ..documents import MIN_CALLS, DocumentFiles, DocumentOptions, make_document_data

    if not args.connection:
        raise OpsError("--from-docs needs a teacher", "Add --connection NAME.")
    if args.max_calls is not None and args.max_calls < MIN_CALLS:
        what = f"--max-calls is {args.max_calls}, but an answer may take {MIN_CALLS} calls"
        raise OpsError(what, "Give a larger number.")
    _require_packages()
    files = DocumentFiles(args.out or DEFAULT_OUT)
    chosen = {
        "questions": args.questions,
        "passage_characters": args.passage_characters,
        "refusal": args.refusal,
        "max_new_tokens": args.max_new_tokens,
        "max_calls": args.max_calls,
        "in_flight": args.in_flight,
    }
    options = DocumentOptions(
        args.connection,
        args.judge,
        test_files=args.test,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    screen = console(to_stderr=True)
    try:
        with _displayed(screen) as display:
            data = make_document_data(
                args.from_docs, files.journal, options, display, left_out=files.all
            )
    except KeyboardInterrupt:
        message = (
            f"interrupted; the answers so far are in {files.journal}, and the same command goes on"
        )
        raise KeyboardInterrupt(message) from None
    if not data.is_complete and files.has_more_rows(data):
        if args.json:
            print_text(json.dumps(data.to_json(), indent=2))
        _print_incomplete(data)
        kept = f"  the files were not replaced, because {files.rows} has more rows"
        print_text(kept, to_stderr=True)
        return 1
    manifest = files.write(data, options.refusal)
    if args.json:
        print_text(json.dumps(manifest, indent=2))
    else:
        _print_report(data, files)
    if not data.is_complete:
        _print_incomplete(data)
        return 1
    if not args.json:
        print_next("phi3", "data", "--source", files.rows)
    return 0


def _require_packages() -> None:
    """Raise OpsError if the packages that read documents are not installed."""
    from importlib.util import find_spec

    if missing := [name for name in ("bs4", "docx", "pypdf", "markdown_it") if not find_spec(name)]:
        what = f"the module {missing[0]}, which reads documents, is not installed"
        raise OpsError(what, f"Run {install_command('documents')}.")


class _Display:
    """Displays the progress of each step with the time left."""

    def __init__(self, screen: Console) -> None:
        from rich.text import Text

        self._text = Text
        self._step, self._left, self._next_line_s = "", TimeLeft(), LINE_EVERY_S
        self.status = screen.status("reading the documents") if screen.is_terminal else None

    def __call__(self, progress: Progress) -> None:
        if progress.step != self._step:
            self._step, self._left, self._next_line_s = progress.step, TimeLeft(), LINE_EVERY_S
        calls = f", {progress.calls:,} calls, {progress.tokens:,} tokens" if progress.calls else ""
        left = self._left.text(progress.done, progress.total)
        line = f"{progress.done:,} of {progress.total:,} {progress.step}{calls}{left}"
        if self.status:
            self.status.update(self._text(line))
        elif self._left.elapsed_s >= self._next_line_s:
            self._next_line_s = self._left.elapsed_s + LINE_EVERY_S
            print_text(line, to_stderr=True)


@contextmanager
def _displayed(screen: Console) -> Iterator[_Display]:
    display = _Display(screen)
    if display.status is None:
        yield display
        return
    with display.status:
        yield display


def _print_report(data: DocumentData, files: DocumentFiles) -> None:
    from rich import box
    from rich.table import Table

    content = data.to_json()
    found, passages, questions = content["files"], content["passages"], content["questions"]
    rows = sum(questions["taken"].values())
    print_text(f"{counted(rows, 'row')} from {counted(found['read'], 'document')}, in {files.rows}")
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_row("files found", f"{found['found']:,}")
    for file in found["not_read"][:20]:
        table.add_row(f"  - {file['file']}: {file['reason']}", "1")
    if len(found["not_read"]) > 20:
        table.add_row("  - others that were not read", f"{len(found['not_read']) - 20:,}")
    if cleaned := found["control_characters"]:
        title = f"control characters in {counted(len(cleaned), 'file')}, now spaces"
        table.add_row(title, f"{sum(cleaned.values()):,}")
    table.add_row("passages", f"{passages['found']:,}")
    labels = {"short": "too short", "failed": "failed", "not_asked": "not asked about"}
    for name, label in {**labels, "repeated": "repeated"}.items():
        if passages[name]:
            table.add_row(f"  - {label}", f"{passages[name]:,}")
    table.add_row("questions written", f"{questions['written']:,}")
    for reason, count in questions["excluded"].items():
        table.add_row(f"  - {reason}", f"{count:,}")
    if questions["not_judged"]:
        table.add_row("  - not judged yet", f"{questions['not_judged']:,}")
    for kind, count in questions["taken"].items():
        table.add_row(f"  taken: {kind}", f"{count:,}")
    console().print(table)
    calls = content["calls"]
    tokens = (
        f"{calls['prompt_tokens']:,} tokens of prompts, {calls['completion_tokens']:,} of answers"
    )
    now, of_answers = calls["now"], calls["all"]
    print_text(f"{now:,} calls now; the answers so far took {of_answers:,} calls: {tokens}")
    print_text(f"open {files.report} in a browser to look at them")


def _print_incomplete(data: DocumentData) -> None:
    passages = len(data.asked.failed) + len(data.asked.not_asked)
    verdicts = len(data.judged.failed) + len(data.judged.not_asked)
    is_budget = data.asked.budget_reached or data.judged.budget_reached
    not_asked = data.asked.not_asked or data.judged.not_asked
    misfits = data.asked.misfits + data.judged.misfits
    step = "run the same command again to go on"
    if is_budget:
        reason = "--max-calls was reached"
    elif not_asked:
        reason = "the endpoint failed"
    elif misfits == len(data.asked.failed) + len(data.judged.failed):
        reason = "the answers did not fit the schema"
        step = "try another model, or raise --max-new-tokens"
    else:
        reason = "the endpoint gave no usable answer"
    left = f"{counted(passages, 'passage')} and {counted(verdicts, 'verdict')} are left"
    line = f"phi3 data: {left}, because {reason}; {step}"
    print_text(line, to_stderr=True)
    for error in data.errors[:3]:
        print_text(f"  {error}", to_stderr=True)
