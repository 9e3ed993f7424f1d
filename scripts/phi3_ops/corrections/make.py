"""Write training rows and preferences from feedback, reviews and runs, with a manifest of all counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data import read_test_questions
from ..errors import OpsError
from ..feedback import FeedbackStore
from ..files import atomic_folder, refuse_foreign_files, stage_marker, write_json, write_jsonl
from ..hashing import file_sha256
from ..review import read_judgements
from .examples import SourceExamples
from .from_feedback import examples_of_feedback
from .from_review import examples_of_review
from .from_runs import RunSource, examples_of_run
from .selection import Excluded, Selection, select_pairs, select_rows

ROWS_FILE, PAIRS_FILE = "train.jsonl", "pairs.jsonl"
EXCLUDED_FILE, MANIFEST_FILE = "excluded.jsonl", "manifest.json"
OUTPUT_FILES = (ROWS_FILE, PAIRS_FILE, EXCLUDED_FILE, MANIFEST_FILE)


@dataclass(frozen=True)
class CorrectionSources:
    """What the training data is made from.

    Attributes:
        feedback: the feedback store, or None.
        runs: runs whose lost lines give pairs.
        reviews: names of reviewed runs.
    """

    feedback: Path | None = None
    runs: Sequence[RunSource] = ()
    reviews: Sequence[str] = ()


@dataclass(frozen=True)
class CorrectionData:
    """What `make_correction_data` wrote. All counts add up.

    Attributes:
        sources: what each source gave.
        rows, pairs: the selected examples.
        test_files: path -> SHA-256 of the test files whose questions were kept out.
        test_questions: number of their questions.
        sha256: name -> SHA-256 of the written files, without the manifest.
    """

    sources: list[SourceExamples]
    rows: Selection
    pairs: Selection
    test_files: dict[str, str]
    test_questions: int
    sha256: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content of manifest.json."""
        return {
            "sources": [
                {
                    "source": source.source,
                    "name": source.name,
                    "records": source.records,
                    "used": source.used,
                    "unused": dict(source.unused.most_common()),
                }
                for source in self.sources
            ],
            "rows": _counts(self.rows),
            "pairs": _counts(self.pairs),
            "test": {"questions": self.test_questions, "files": self.test_files},
            "sha256": self.sha256,
        }


def make_correction_data(
    sources: CorrectionSources, test_files: Sequence[Path], out: Path
) -> CorrectionData:
    """Write `train.jsonl`, `pairs.jsonl`, `excluded.jsonl` and `manifest.json`.

    Args:
        sources: what the training data is made from.
        test_files: files of test questions. No example that asks one of them, or nearly one, is taken.
        out: folder to write to. All earlier files are replaced; on an error, none is.

    Raises:
        OpsError: a source or a test file cannot be read, no example is left, or `out` cannot be written.
    """
    refuse_foreign_files(out, OUTPUT_FILES)
    test = read_test_questions(test_files)
    read = list(_read_sources(sources))
    examples = [example for source in read for example in source.examples]
    rows = select_rows([e for e in examples if e.rejected is None], test)
    pairs = select_pairs([e for e in examples if e.rejected is not None], test)
    if not rows.taken and not pairs.taken:
        raise _nothing_left(read, rows, pairs)
    hashes = {str(file): file_sha256(file) for file in test_files}
    with atomic_folder(out, last=MANIFEST_FILE) as folder:
        write_jsonl(folder / ROWS_FILE, (example.to_json() for example in rows.taken))
        write_jsonl(folder / PAIRS_FILE, (example.to_json() for example in pairs.taken))
        write_jsonl(folder / EXCLUDED_FILE, map(_excluded_entry, [*rows.excluded, *pairs.excluded]))
        written = {name: file_sha256(folder / name) for name in OUTPUT_FILES[:-1]}
        made = CorrectionData(read, rows, pairs, hashes, len(test), written)
        write_json(folder / MANIFEST_FILE, made.to_json())
        stage_marker(folder, out, OUTPUT_FILES)
    return made


def _read_sources(sources: CorrectionSources) -> Iterable[SourceExamples]:
    if sources.feedback:
        if not sources.feedback.is_file():
            what = f"the feedback store {sources.feedback} does not exist"
            raise OpsError(
                what, "Collect feedback with phi3 serve --feedback, or give another STORE."
            )
        records = FeedbackStore(sources.feedback).records()
        yield examples_of_feedback(records, sources.feedback.name)
    for name in sources.reviews:
        yield examples_of_review(read_judgements(name), name)
    for run in sources.runs:
        yield examples_of_run(run)


def _counts(selection: Selection) -> dict[str, Any]:
    taken, excluded = len(selection.taken), len(selection.excluded)
    return {"examples": taken + excluded, "taken": taken, "excluded": selection.reasons}


def _excluded_entry(excluded: Excluded) -> dict[str, Any]:
    entry = {"reason": excluded.reason, "detail": excluded.detail}
    return {**entry, "row": excluded.example.to_json()}


def _nothing_left(read: Sequence[SourceExamples], rows: Selection, pairs: Selection) -> OpsError:
    records = sum(source.records for source in read)
    reasons: dict[str, int] = {}
    for counts in (*(source.unused for source in read), rows.reasons, pairs.reasons):
        for reason, count in counts.items():
            reasons[reason] = reasons.get(reason, 0) + count
    listed = ", ".join(f"{reason} ({count})" for reason, count in reasons.items()) or "no records"
    what = f"no training data can be made from {records} records: {listed}"
    return OpsError(what, "Nothing was written. Collect more corrections, or check --test.")
