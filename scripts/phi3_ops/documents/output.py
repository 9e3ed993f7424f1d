"""The files of the rows from documents: rows, excluded questions, counts, and a report to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import atomic_folder, refuse_foreign_files, stage_marker, write_json, write_jsonl
from ..hashing import file_sha256
from .report import render_document_report
from .results import DocumentData


class DocumentFiles:
    """The files of one `--out`.

    Args:
        rows: the file of the rows, which ends with `.jsonl`. The other files are next to it.

    Attributes:
        excluded: the questions that were excluded, with the reasons.
        report: the report as HTML.
        manifest: the counts as JSON.
        journal: the journal of the teacher's answers.
        all: all of them.

    Raises:
        OpsError: the name does not end with `.jsonl`, or a file exists that phi3 did not write.
    """

    def __init__(self, rows: Path) -> None:
        if rows.suffix != ".jsonl":
            raise OpsError(f"--out {rows} is not a JSONL file", "Use for example --out rows.jsonl.")
        self.rows = rows
        self.excluded = rows.with_suffix(".excluded.jsonl")
        self.report = rows.with_suffix(".html")
        self.manifest = rows.with_suffix(".manifest.json")
        self.journal = rows.with_suffix(".journal.jsonl")
        self._names = [file.name for file in (rows, self.excluded, self.report, self.manifest)]
        self.all = (rows, self.excluded, self.report, self.manifest, self.journal)
        refuse_foreign_files(rows.parent, self._names)

    def has_more_rows(self, data: DocumentData) -> bool:
        """Return whether the file of the rows exists, and has more rows than a result."""
        try:
            return self.rows.read_bytes().count(b"\n") > len(data.checked.passed)
        except OSError:
            return False

    def write(self, data: DocumentData, refusal: str) -> dict[str, Any]:
        """Write all files but the journal, completely or not at all, and return the manifest.

        Args:
            data: what they contain.
            refusal: the answer to unanswerable questions.

        Raises:
            OpsError: the folder cannot be written.
        """
        folder = self.rows.parent
        with atomic_folder(folder, last=self.manifest.name) as new:
            write_jsonl(new / self.rows.name, _rows(data, refusal))
            write_jsonl(new / self.excluded.name, _excluded(data, refusal))
            page = render_document_report(data)
            (new / self.report.name).write_text(page, encoding="utf-8")
            hashes = {name: file_sha256(new / name) for name in self._names[:-1]}
            manifest = {**data.to_json(), "sha256": hashes}
            write_json(new / self.manifest.name, manifest)
            stage_marker(new, folder, self._names)
        return manifest


def _rows(data: DocumentData, refusal: str) -> Iterator[dict[str, Any]]:
    for candidate in data.checked.passed:
        yield candidate.to_json(refusal, data.scores.get(candidate))


def _excluded(data: DocumentData, refusal: str) -> Iterator[dict[str, Any]]:
    for candidate, reason in data.checked.excluded:
        row = candidate.to_json(refusal, data.scores.get(candidate))
        yield {"reason": reason, "quote_of_teacher": candidate.draft.quote, "row": row}
