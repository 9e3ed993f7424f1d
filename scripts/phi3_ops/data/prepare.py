"""Prepare training and test data: read chats as a stream, check, split and write them.

A row is an object such as those of HuggingFaceH4/ultrachat_200k: `messages`, and any other columns. Rows
that pass the checks are copied from their source, or wait in a temporary file (the spool). Rows that do
not pass are written to `rejects.jsonl` with the reason. The number of rows read is the number of rows
for training, for testing and rejected.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from ..errors import OpsError
from ..files import atomic_folder, refuse_foreign_files, stage_marker, write_json, write_jsonl
from ..hashing import file_sha256
from .checks import ESTIMATE, Chat, Problem, check_chat, estimate_tokens, token_counter
from .hashed_lines import WRITE_BLOCK, HashedLines
from .lengths import length_histogram, summarise_lengths
from .manifest import DataManifest, RowCounts, TokenCounts
from .rows import AcceptedRows, RejectedRows, dump_row
from .source_rows import Source, TextColumns
from .sources import empty_source, open_source
from .split import HELD_OUT, TRAINED, UNKNOWN, Split, split_chats
from .tool_checks import answer_schema, expected_calls, read_tools

TEST_SHARE = 0.2
TRAIN_FILE, TEST_FILE, QUESTIONS_FILE = "train.jsonl", "test.jsonl", "questions.jsonl"
REJECTS_FILE, MANIFEST_FILE = "rejects.jsonl", "manifest.json"
OUTPUT_FILES = (TRAIN_FILE, TEST_FILE, QUESTIONS_FILE, REJECTS_FILE, MANIFEST_FILE)
PROGRESS_ROWS = 2000  # between two calls of `progress`
MAX_QUESTIONS = 1000  # of a kind: the share of right answers is then known to within 3 points
_BUFFER = 1 << 16  # bytes that are read at once when rows are copied


@dataclass(frozen=True)
class DataOptions:
    """How a source is read and checked; see `phi3 data --help`.

    Attributes:
        split: slice of a dataset on the hub; None means the default slice.
        revision: branch, tag or commit of a dataset on the hub; None means the main branch.
        columns: columns of the prompt and the answer; None finds them by their usual names.
        max_tokens: longest accepted chat; None accepts every length.
        over_long: `drop`, `cut` or `keep`: what happens to a longer chat.
        tokenizer: folder or id of the model whose tokens are counted; None estimates.
        strict: whether a row that does not pass the checks is an error.
        max_questions: maximum number of questions of each kind.
    """

    split: str | None = None
    revision: str | None = None
    columns: TextColumns | None = None
    max_tokens: int | None = None
    over_long: str = "drop"
    tokenizer: str | None = None
    strict: bool = False
    max_questions: int = MAX_QUESTIONS


def prepare_data(
    source: str | Path,
    out: Path,
    *,
    seed: int,
    test_share: float = TEST_SHARE,
    options: DataOptions | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> DataManifest:
    """Write `train.jsonl`, `test.jsonl`, `questions.jsonl`, `rejects.jsonl` and `manifest.json`.

    Args:
        source: a file, a folder, or the id of a dataset on the hub.
        out: folder to write to. All earlier files are replaced; on an error, none is. Files that this
            product did not write are never replaced.
        seed: seed of the split.
        test_share: share of the rows for testing, between 0 and 1.
        options: how to read and check the source.
        progress: function that is called from time to time with the number of rows read.

    Raises:
        OpsError: the source does not exist or has too few good rows (with `strict`, any bad row); or
            `out` cannot be written, or would lose files of others.
    """
    options = options or DataOptions()
    if not 0 < test_share < 1:
        raise OpsError(f"the test share is {test_share}", "Give a number between 0 and 1.")
    opened = open_source(
        source, split=options.split, revision=options.revision, columns=options.columns
    )
    _refuse_replacing(opened, out)
    refuse_foreign_files(out, OUTPUT_FILES)
    stamps = _file_stamps(opened)
    with (
        atomic_folder(out, last=MANIFEST_FILE) as folder,
        tempfile.TemporaryFile(dir=folder, buffering=_BUFFER) as spool,
    ):
        accepted, rejected = _read_rows(opened, folder, spool, options, progress)
        _check_counts(opened.name, accepted, rejected, options.strict)
        split = split_chats(
            accepted.prompts,
            accepted.facts,
            accepted.answers,
            later_facts=accepted.later_facts,
            seed=seed,
            test_share=test_share,
        )
        questions = _sample_questions(split, random.Random(seed), options.max_questions)
        hashes = _write_rows(opened, folder, spool, accepted, split, questions)
        if stamps != _file_stamps(opened):
            raise OpsError(f"{opened.name} changed while it was read", "Run this again.")
        hashes[REJECTS_FILE] = file_sha256(folder / REJECTS_FILE)
        manifest = _manifest(
            opened, accepted, rejected, split, options, hashes, seed=seed, test_share=test_share
        )
        write_json(folder / MANIFEST_FILE, manifest.to_json())
        stage_marker(folder, out, OUTPUT_FILES)
    return manifest


def _refuse_replacing(source: Source, out: Path) -> None:
    """Raise OpsError if a file that will be written is a file of the source."""
    written = {TRAIN_FILE, TEST_FILE, QUESTIONS_FILE, REJECTS_FILE}
    for file in source.files:
        if file.name in written and file.resolve().parent == out.resolve():
            raise OpsError(f"{file} is the source, and would be replaced", "Give another --out.")


def _file_stamps(source: Source) -> list[tuple[int, int]]:
    """Return the size and the time of modification of each file, to notice a change."""
    stats = [file.stat() for file in source.files]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


# -- reading -----------------------------------------------------------------------------------------


def _read_rows(
    source: Source,
    folder: Path,
    spool: IO[bytes],
    options: DataOptions,
    progress: Callable[[int], None],
) -> tuple[AcceptedRows, RejectedRows]:
    """Check every row; write rejected rows to `folder`, and rows that cannot be copied to the spool."""
    count = token_counter(options.tokenizer) if options.tokenizer else estimate_tokens
    accepted = AcceptedRows(count, options.max_tokens, options.over_long)
    with (folder / REJECTS_FILE).open("wb", buffering=WRITE_BLOCK) as file:
        rejected = RejectedRows(file)
        for file_number, (name, source_rows) in enumerate(source.parts, 1):
            accepted.start_part(name)
            for number, source_row in enumerate(source_rows, 1):
                if not number % PROGRESS_ROWS:
                    progress(len(accepted) + len(rejected))
                chat = source_row.problem or check_chat(source_row.row)
                if isinstance(chat, Chat):
                    chat = accepted.add(chat, source_row)
                if isinstance(chat, Problem):
                    rejected.add(name, source_row, chat)
                elif source_row.start is not None and chat.messages is source_row.row["messages"]:
                    accepted.set_location(file_number, source_row.start, len(source_row.raw or b""))
                else:
                    text = dump_row({**source_row.row, "messages": chat.messages})
                    accepted.set_location(0, spool.tell(), len(text))
                    spool.write(text)
    return accepted, rejected


def _check_counts(name: str, accepted: AcceptedRows, rejected: RejectedRows, strict: bool) -> None:
    """Raise OpsError if rows were rejected (only if strict), or if too few rows were accepted."""
    if strict and len(rejected):
        total = len(accepted) + len(rejected)
        what = f"{len(rejected)} of {total} rows do not pass: {rejected.in_words()}"
        raise OpsError(what, "Correct them, or leave out --strict to go on without them.")
    if not len(accepted) + len(rejected):
        raise empty_source(name)
    if len(accepted) < 2:
        what = f"{name} has {len(accepted)} good row{'s' if len(accepted) != 1 else ''}"
        reasons = f": {rejected.in_words()}" if len(rejected) else ""
        fix = 'A row is {"messages": [{"role": "user", …}, {"role": "assistant", …}], …}.'
        raise OpsError(f"{what}{reasons}. At least 2 are needed to train and test", fix)


# -- writing -----------------------------------------------------------------------------------------


def _write_rows(
    source: Source,
    folder: Path,
    spool: IO[bytes],
    accepted: AcceptedRows,
    split: Split,
    question_rows: set[int],
) -> dict[str, str]:
    """Write the rows of a split and the questions. Return name -> SHA-256 of the files."""
    questions = []
    with (
        ExitStack() as stack,
        ThreadPoolExecutor(1) as thread,
        HashedLines(folder / TRAIN_FILE, thread) as train,
        HashedLines(folder / TEST_FILE, thread) as test,
    ):
        opened = [stack.enter_context(path.open("rb", _BUFFER)) for path in source.files]
        files = [spool, *opened]  # in the order of AcceptedRows.file_numbers
        for kind, row in _kinds_and_rows(split):
            file = files[accepted.file_numbers[row]]
            file.seek(accepted.starts[row])
            text = file.read(accepted.sizes[row]).strip()
            (train if kind == TRAINED else test).write(text)
            if row in question_rows:
                questions.append(_question(kind, orjson.loads(text)))
    write_jsonl(folder / QUESTIONS_FILE, questions)
    hashes = {lines.path.name: lines.hash.hexdigest() for lines in (train, test)}
    return {**hashes, QUESTIONS_FILE: file_sha256(folder / QUESTIONS_FILE)}


def _kinds_and_rows(split: Split) -> Iterator[tuple[str, int]]:
    """Yield kind and number of every row: first the rows for training."""
    yield from ((TRAINED, row) for row in split.train)
    yield from split.test


def _sample_questions(split: Split, rng: random.Random, most: int) -> set[int]:
    """Return the rows whose prompts become questions: at most `most` of each kind."""
    rows_by_kind: dict[str, list[int]] = {}
    for kind, row in _kinds_and_rows(split):
        rows_by_kind.setdefault(kind, []).append(row)
    samples = (
        rng.sample(rows, most) if len(rows) > most else rows for rows in rows_by_kind.values()
    )
    return set().union(*samples)


def _question(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return the input of a batch: the first prompt, which needs no history, and its answer.

    A row with tools or with a schema also has the inputs of flows/eval_structured.
    """
    chat = check_chat(row)
    assert isinstance(chat, Chat)  # noqa: S101 - every accepted row passed this check
    question = {
        "question": chat.prompt,
        "ground_truth": chat.answer,
        "kind": kind,
        "fact": row.get("fact", ""),
    }
    if schema := answer_schema(row):
        question["schema"] = schema
    if chat.with_tools:
        question["tools"] = read_tools(row)
        question["expected_calls"] = expected_calls(chat.messages[chat.system + 1])
        question["ground_truth"] = str(chat.messages[-1]["content"])
    if chat.system and (schema or chat.with_tools):
        question["system"] = chat.messages[0]["content"]
    return question


# -- manifest ----------------------------------------------------------------------------------------


def _manifest(
    source: Source,
    accepted: AcceptedRows,
    rejected: RejectedRows,
    split: Split,
    options: DataOptions,
    hashes: dict[str, str],
    *,
    seed: int,
    test_share: float,
) -> DataManifest:
    return DataManifest(
        source=source.origin,
        source_files={file.name: file_sha256(file) for file in source.files},
        seed=seed,
        test_share=test_share,
        rows=_row_counts(accepted, rejected, split),
        columns=source.columns,
        groups=split.groups,
        rejected=dict(rejected.reasons.most_common()),
        kinds=_kind_counts(split),
        tokens=_token_counts(accepted, split, options),
        turns=summarise_lengths(accepted.turns),
        sha256=hashes,
    )


def _row_counts(accepted: AcceptedRows, rejected: RejectedRows, split: Split) -> RowCounts:
    most = accepted.max_tokens
    return RowCounts(
        read=len(accepted) + len(rejected),
        train=len(split.train),
        test=len(split.test),
        rejected=len(rejected),
        cut=accepted.cut,
        over_long=sum(tokens > most for tokens in accepted.tokens) if most else 0,
    )


def _kind_counts(split: Split) -> dict[str, int]:
    tested = Counter(kind for kind, _ in split.test)
    return {TRAINED: len(split.train), HELD_OUT: tested[HELD_OUT], UNKNOWN: tested[UNKNOWN]}


def _token_counts(accepted: AcceptedRows, split: Split, options: DataOptions) -> TokenCounts:
    tokens = accepted.tokens
    return TokenCounts(
        counted=f"with {options.tokenizer}" if options.tokenizer else ESTIMATE,
        max_tokens=options.max_tokens,
        over_long=options.over_long if options.max_tokens else None,
        train=summarise_lengths(tokens[row] for row in split.train),
        test=summarise_lengths(tokens[row] for _, row in split.test),
        all=summarise_lengths(tokens),
        histogram=length_histogram(tokens),
    )
