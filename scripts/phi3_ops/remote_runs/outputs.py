"""The outputs of a batch on Azure, as a run in Prompt flow's store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import read_jsonl
from ..hashing import file_sha256
from ..names import require_inside
from ..pf import LINE_NUMBER, add_run
from ..runs import ConnectionFacts, RunProperties, write_run_folder
from .request import BatchRequest

MISSING_REASON = "not among the job's outputs: its mini-batch failed, or was never run"

Row = dict[str, Any]


@dataclass(frozen=True)
class Download:
    """What was downloaded of a batch.

    Attributes:
        answers: line number -> outputs of the flow.
        errors: line number -> the reason for which the line failed, if it is known.
        files: a folder with the other files of the run, or None.
        token_counts: number of tokens that the lines took, by the names of a local run.
    """

    answers: Mapping[int, Row]
    errors: Mapping[int, str] = field(default_factory=dict)
    files: Path | None = None
    token_counts: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def downloads_stay_inside() -> Iterator[None]:
    """Refuse blobs whose names lead out of the folder to which azure-ai-ml downloads them.

    The SDK joins a blob's name to the folder's path without a check.
    """
    from azure.ai.ml._artifacts._blob_storage_helper import BlobStorageClient

    download = BlobStorageClient.download

    def checked(client: Any, starts_with: str, destination: Any = None, **options: Any) -> Any:
        folder = Path(destination or Path.home())
        for blob in client.container_client.list_blobs(name_starts_with=starts_with):
            name = blob.name[len(starts_with) :].lstrip("/")
            require_inside(folder / name, folder, "a file of the job's outputs")
        return download(client, starts_with, folder, **options)

    BlobStorageClient.download = checked
    try:
        yield
    finally:
        BlobStorageClient.download = download


def read_cluster_outputs(folder: Path, line_count: int) -> Download:
    """Read what the entry script of a batch on a cluster has written.

    A line may have several rows, because a mini-batch that failed has run again. A row with an answer
    counts more than a row with an error. Files that a killed process has not finished are skipped.

    Args:
        folder: the downloaded files: `*.jsonl` of mini-batches, and `*.json` of lines.
        line_count: number of lines in the data file.

    Raises:
        OpsError: a row has no line number, or the data file has no such line.
    """
    answers: dict[int, Row] = {}
    errors: dict[int, str] = {}
    tokens: dict[int, Row] = {}
    for file in sorted(folder.rglob("*.json*")):
        for row in _finished_rows(file):
            line = pop_line_number(row, line_count, file.name)
            if isinstance(row.get("output"), dict):
                answers[line] = row["output"]
                tokens[line] = row.get("tokens") or {}
            else:
                errors[line] = str(row.get("error") or MISSING_REASON)
                tokens.setdefault(line, row.get("tokens") or {})
    counts: Counter[str] = Counter()
    for line_tokens in tokens.values():
        counts.update(line_tokens)
    return Download(
        dict(sorted(answers.items())),
        {line: error for line, error in sorted(errors.items()) if line not in answers},
        token_counts=counts,
    )


def _finished_rows(file: Path) -> list[Row]:
    try:
        return read_jsonl(file)
    except OpsError:
        return []


def pop_line_number(row: Row, line_count: int, where: str) -> int:
    """Remove the line number from a row, and return it.

    Args:
        row: the row.
        line_count: number of lines in the data file.
        where: name of the row's file, for the error.

    Raises:
        OpsError: the row has no line number, or the data file has no such line.
    """
    line = row.pop(LINE_NUMBER, None)
    if type(line) is not int or not 0 <= line < line_count:
        fix = "These outputs do not belong to this data file."
        raise OpsError(f"{where}: `{LINE_NUMBER}` is {line!r}", fix)
    return line


def write_downloaded_run(
    folder: Path, request: BatchRequest, rows: Sequence[Row], download: Download
) -> None:
    """Write the folder of a run as Prompt flow does. A line without an answer has failed.

    Args:
        folder: the folder of the run.
        request: what was run.
        rows: the rows of the data file.
        download: what was downloaded.

    Raises:
        OpsError: the folder cannot be written.
    """
    failed = [line for line in range(len(rows)) if line not in download.answers]
    write_run_folder(
        folder,
        request.flow.folder,
        inputs={line: request.inputs_of(row) for line, row in enumerate(rows)},
        answers=download.answers,
        errors={line: download.errors.get(line, MISSING_REASON) for line in failed},
        other_files=download.files,
    )


def add_downloaded_run(
    name: str,
    folder: Path,
    request: BatchRequest,
    *,
    endpoints: Mapping[str, ConnectionFacts],
    token_counts: Mapping[str, int],
) -> None:
    """Add a run to Prompt flow's store, if the store does not have it yet.

    Args:
        name: the name of the run.
        folder: the folder of the run.
        request: what was run.
        endpoints: node -> the connection of the workspace that it used.
        token_counts: number of tokens, by the names of a local run.

    Raises:
        OpsError: the store cannot be written.
    """
    properties = replace(
        RunProperties.of_flow(request.flow.folder),
        data_sha256=file_sha256(request.data),
        endpoints=endpoints,
        token_counts=token_counts,
    )
    add_run(
        name,
        folder,
        title=request.title,
        data=request.data,
        flow=request.flow.folder,
        column_mapping=request.columns,
        properties=properties.to_properties(),
    )
