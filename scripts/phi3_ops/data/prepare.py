"""Training and test data: chats read as a stream, checked, split and written with a manifest.

A row is one of HuggingFaceH4/ultrachat_200k's: `prompt`, `prompt_id`, `messages`, and whatever else it
has. Rows that pass the checks wait in a temporary file; of each only its place, length and digests stay
in memory. Rows that do not are written to `rejects.jsonl` with the reason, so that none vanishes: rows
read are rows to train, to test and rejected.
"""

from __future__ import annotations

import base64
import random
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from ..errors import OpsError
from ..files import atomic_folder, write_json, write_jsonl
from ..hashing import file_sha256
from .checks import (
    DUPLICATE,
    ESTIMATE,
    TOO_LONG,
    Chat,
    Count,
    Problem,
    chat_digest,
    check_chat,
    estimate_tokens,
    plain_text,
    shorten_chat,
    token_counter,
)
from .formats import RowReader
from .hashed_lines import WRITE_BLOCK, HashedLines
from .lengths import length_histogram, length_summary
from .sources import Source, open_source
from .split import HELD_OUT, TRAINED, UNKNOWN, Split, split_chats

TEST_SHARE = 0.2
TRAIN_FILE, TEST_FILE, QUESTIONS_FILE = "train.jsonl", "test.jsonl", "questions.jsonl"
REJECTS_FILE, MANIFEST_FILE = "rejects.jsonl", "manifest.json"
SHOWN_REJECTS = 3  # in an error
PROGRESS_ROWS = 2000  # between two reports
MOST_QUESTIONS = 1000  # of a kind: its share of right answers is then known to 3 points
_BUFFER = 1 << 16  # bytes that are read at once, where rows are picked

Row = dict[str, Any]


@dataclass(frozen=True)
class DataOptions:
    """How a source is read and checked; see `phi3 data --help`."""

    split: str | None = None
    revision: str | None = None
    columns: tuple[str, str] | None = None  # of prompt and answer
    max_tokens: int | None = None
    over_long: str = "drop"  # or cut, keep
    tokenizer: str | None = None
    strict: bool = False


@dataclass
class _Kept:
    """What stays in memory of the rows that passed."""

    # Where the row's text lies: in which file (0: the spool, n: the n-th of the source), from, bytes.
    homes: array[int] = field(default_factory=lambda: array("L"))
    starts: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("L"))
    tokens: array[int] = field(default_factory=lambda: array("L"))
    turns: array[int] = field(default_factory=lambda: array("L"))
    lines: array[int] = field(default_factory=lambda: array("Q"))  # in their file
    files: list[tuple[int, str]] = field(default_factory=list)  # each file's first row, its name
    prompts: array[int] = field(default_factory=lambda: array("q"))  # hashes
    facts: list[str] | None = field(default_factory=list)  # where every row names one
    chats: dict[bytes, int] = field(default_factory=dict)  # digest -> row
    cut: int = 0

    def __len__(self) -> int:
        return len(self.prompts)

    def add(
        self, chat: Chat, read: RowReader, count: Count, options: DataOptions
    ) -> Chat | Problem:
        """Take a chat, perhaps shortened; or say why not."""
        tokens, most = count(chat), options.max_tokens
        if most is not None and tokens > most and options.over_long != "keep":
            shorter = shorten_chat(chat, most, count) if options.over_long == "cut" else None
            if shorter is None:
                return Problem(TOO_LONG, f"{tokens} tokens, more than {most}")
            chat, tokens = shorter, count(shorter)
        first = self.chats.setdefault(chat_digest(chat), len(self))
        if first != len(self):
            return Problem(DUPLICATE, f"says the same as {self._place(first)}")
        self.cut += chat.messages is not read.row["messages"]
        self.tokens.append(tokens)
        self.turns.append(len(chat.messages) // 2)
        self.lines.append(read.line)
        # Where two hashes happen to be equal, two prompts are on the same side: no harm.
        self.prompts.append(hash(plain_text(chat.prompt.strip())))
        if self.facts is not None:
            fact = read.row.get("fact")
            if isinstance(fact, str):
                self.facts.append(fact)
            else:
                self.facts = None
        return chat

    def store(self, home: int, start: int, size: int) -> None:
        """Note where the text of the chat that was added last lies."""
        self.homes.append(home)
        self.starts.append(start)
        self.sizes.append(size)

    def _place(self, row: int) -> str:
        name = next(name for first, name in reversed(self.files) if first <= row)
        return f"{Path(name).name}, line {self.lines[row]}"


def prepare_data(
    source: str | Path,
    out: Path,
    *,
    seed: int,
    test_share: float = TEST_SHARE,
    options: DataOptions | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Row:
    """Write `train.jsonl`, `test.jsonl`, `questions.jsonl`, `rejects.jsonl` and `manifest.json`.

    Args:
        source: a file, a folder, or a dataset's id on the hub.
        out: folder to write to; what an earlier run wrote there is replaced whole, or left whole.
        seed: of the split.
        test_share: of the rows, between 0 and 1.
        options: how to read and check.
        progress: is told now and then how many rows have been read.

    Returns:
        The manifest.

    Raises:
        OpsError: there is no such source, it has too few good rows (or, if strict, any bad one), or
            `out` cannot be written.
    """
    options = options or DataOptions()
    if not 0 < test_share < 1:
        raise OpsError(f"the test share is {test_share}", "Give a number between 0 and 1.")
    found = open_source(
        source, split=options.split, revision=options.revision, columns=options.columns
    )
    _spare_source(found, out)
    stamps = _stamps(found)
    with atomic_folder(out, last=MANIFEST_FILE) as folder:
        with tempfile.TemporaryFile(dir=folder, buffering=_BUFFER) as spool:
            with (folder / REJECTS_FILE).open("wb", buffering=WRITE_BLOCK) as file:
                rejects = _Rejects(file)
                kept = _read(found, spool, rejects, options, progress)
            _check_rows(found.name, kept, rejects, options.strict)
            parts = split_chats(kept.prompts, kept.facts, seed=seed, test_share=test_share)
            with ExitStack() as stack:
                opened = [stack.enter_context(path.open("rb", _BUFFER)) for path in found.files]
                hashes = _write(folder, [spool, *opened], kept, parts, seed)
        if stamps != _stamps(found):
            raise OpsError(f"{found.name} changed while it was read", "Run this again.")
        manifest = {
            "source": {**found.origin, "files": {f.name: file_sha256(f) for f in found.files}},
            "seed": seed,
            "test_share": test_share,
            "rows": _row_counts(kept, parts, rejects, options.max_tokens),
            "rejected": dict(rejects.reasons.most_common()),
            "kinds": _kinds(parts),
            "tokens": _token_counts(kept, parts, options),
            "turns": length_summary(kept.turns),
            "sha256": {**hashes, REJECTS_FILE: file_sha256(folder / REJECTS_FILE)},
        }
        write_json(folder / MANIFEST_FILE, manifest)
    return manifest


def _spare_source(source: Source, out: Path) -> None:
    written = {TRAIN_FILE, TEST_FILE, QUESTIONS_FILE, REJECTS_FILE}
    for file in source.files:
        if file.name in written and file.resolve().parent == out.resolve():
            raise OpsError(f"{file} is the source, and would be replaced", "Give another --out.")


def _stamps(source: Source) -> list[tuple[int, int]]:
    stats = [file.stat() for file in source.files]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


# -- reading -----------------------------------------------------------------------------------------


def _read(
    source: Source,
    spool: IO[bytes],
    rejects: _Rejects,
    options: DataOptions,
    progress: Callable[[int], None],
) -> _Kept:
    """Check every row. Good ones that are no row of JSONL as it stands go to the spool."""
    count = token_counter(options.tokenizer) if options.tokenizer else estimate_tokens
    kept = _Kept()
    for name, reads in source.parts:
        kept.files.append((len(kept), name))
        for number, read in enumerate(reads, 1):
            if not number % PROGRESS_ROWS:
                progress(len(kept) + rejects.rows)
            chat = read.problem or check_chat(read.row)
            if isinstance(chat, Chat):
                chat = kept.add(chat, read, count, options)
            if isinstance(chat, Problem):
                rejects.add(name, read, chat)
                continue
            if read.start is not None and chat.messages is read.row["messages"]:
                kept.store(len(kept.files), read.start, len(read.raw or b""))
            else:
                text = _dump({**read.row, "messages": chat.messages})
                kept.store(0, spool.tell(), len(text))
                spool.write(text)
    return kept


def _dump(value: Any) -> bytes:
    return orjson.dumps(value, default=str)


class _Rejects:
    """Rows that did not pass, written with file, line and reason."""

    def __init__(self, file: IO[bytes]) -> None:
        self.reasons: Counter[str] = Counter()
        self.first: list[str] = []
        self._file = file

    @property
    def rows(self) -> int:
        return self.reasons.total()

    def add(self, name: str, read: RowReader, problem: Problem) -> None:
        self.reasons[problem.reason] += 1
        if len(self.first) < SHOWN_REJECTS:
            self.first.append(f"{name}, line {read.line}: {problem.detail}")
        place = {"file": Path(name).name, "line": read.line}
        why = {"reason": problem.reason, "detail": problem.detail}
        self._file.write(_dump({**place, **why, **_content(read)}) + b"\n")


def _content(read: RowReader) -> Row:
    """A rejected row as it can be told: as JSON, as text, or as bytes that are no text."""
    if read.row is not None or read.raw is None:
        return {"row": read.row}
    try:
        return {"text": read.raw.decode().strip()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(read.raw).decode()}


def _check_rows(name: str, kept: _Kept, rejects: _Rejects, strict: bool) -> None:
    more = rejects.rows - len(rejects.first)
    first = "; ".join(rejects.first) + (f"; and {more} more" if more else "")
    if strict and rejects.rows:
        what = f"{rejects.rows} of {len(kept) + rejects.rows} rows do not pass: {first}"
        raise OpsError(what, "Correct them, or leave out --strict to go on without them.")
    if len(kept) < 2:
        what = f"{name} has {len(kept)} good row{'s' if len(kept) != 1 else ''}"
        fix = 'A row is {"messages": [{"role": "user", …}, {"role": "assistant", …}], …}.'
        least = "At least 2 are needed to train and test"
        raise OpsError(f"{what}{': ' + first if first else ''}. {least}", fix)


# -- writing -----------------------------------------------------------------------------------------


def _write(folder: Path, files: Sequence[IO[bytes]], kept: _Kept, parts: Split, seed: int) -> Row:
    """Write a split's rows and questions; the hashes of the files.

    Args:
        folder: to write to.
        files: the spool, and the source's files.
        kept: where rows lie.
        parts: the split.
        seed: of the choice of questions.
    """
    asked = _asked(parts, random.Random(seed))
    questions = []
    with (
        ThreadPoolExecutor(1) as thread,
        HashedLines(folder / TRAIN_FILE, thread) as train,
        HashedLines(folder / TEST_FILE, thread) as test,
    ):
        for kind, row in _in_order(parts):
            file = files[kept.homes[row]]
            file.seek(kept.starts[row])
            text = file.read(kept.sizes[row]).strip()
            (train if kind == TRAINED else test).write(text)
            if row in asked:
                questions.append(_question(kind, orjson.loads(text)))
    write_jsonl(folder / QUESTIONS_FILE, questions)
    written = {file.path.name: file.hash.hexdigest() for file in (train, test)}
    return {**written, QUESTIONS_FILE: file_sha256(folder / QUESTIONS_FILE)}


def _in_order(parts: Split) -> Iterator[tuple[str, int]]:
    yield from ((TRAINED, row) for row in parts.train)
    yield from parts.test


def _asked(parts: Split, chance: random.Random) -> set[int]:
    """The rows that are asked: of each kind all, or as many as tell enough."""
    kinds: dict[str, list[int]] = {}
    for kind, row in _in_order(parts):
        kinds.setdefault(kind, []).append(row)
    few = (
        chance.sample(rows, MOST_QUESTIONS) if len(rows) > MOST_QUESTIONS else rows
        for rows in kinds.values()
    )
    return set().union(*few)


def _question(kind: str, row: Row) -> Row:
    """What a batch asks: the first prompt, which needs no history, and the answer to it."""
    chat = check_chat(row)
    assert isinstance(chat, Chat)  # noqa: S101 - it was checked before
    return {
        "question": chat.prompt,
        "ground_truth": chat.answer,
        "kind": kind,
        "fact": row.get("fact", ""),
    }


# -- manifest ----------------------------------------------------------------------------------------


def _row_counts(kept: _Kept, parts: Split, rejects: _Rejects, most: int | None) -> Row:
    return {
        "read": len(kept) + rejects.rows,
        "train": len(parts.train),
        "test": len(parts.test),
        "rejected": rejects.rows,
        "cut": kept.cut,
        "over_long": sum(tokens > most for tokens in kept.tokens) if most else 0,
    }


def _kinds(parts: Split) -> dict[str, int]:
    found = Counter(kind for kind, _ in parts.test)
    return {TRAINED: len(parts.train), **{kind: found[kind] for kind in (HELD_OUT, UNKNOWN)}}


def _token_counts(kept: _Kept, parts: Split, options: DataOptions) -> Row:
    return {
        "counted": f"with {options.tokenizer}" if options.tokenizer else ESTIMATE,
        "max_tokens": options.max_tokens,
        "over_long": options.over_long if options.max_tokens else None,
        "train": length_summary(kept.tokens[row] for row in parts.train),
        "test": length_summary(kept.tokens[row] for _, row in parts.test),
        "all": length_summary(kept.tokens),
        "histogram": length_histogram(kept.tokens),
    }
