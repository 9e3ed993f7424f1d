"""Replay a recording with a form of the flow, and compare exactly."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..connections import FILE_VARIABLE
from .exchanges import Replay, loopback_server
from .recording import RecordedLine, Recording
from .subjects import Outcome, Subject

REPLAY_KEY = "replay"  # the endpoint of a replay checks no key
SHOWN = 300  # characters of a value that a difference shows
MISSING = "<no output>"


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        line: number of the line from 0, or None for the whole recording.
        what: what differs, for example `outputs.answer`.
        recorded: the recorded value.
        actual: the present value.
    """

    line: int | None
    what: str
    recorded: Any
    actual: Any

    def __str__(self) -> str:
        place = "all lines" if self.line is None else f"line {self.line}"
        return f"{place}, {self.what}: recorded {_short(self.recorded)}, now {_short(self.actual)}"


@dataclass
class ParityReport:
    """The result of a comparison.

    Attributes:
        subject: what was compared.
        compared: number of comparisons.
        differences: the differences.
    """

    subject: str
    compared: int = 0
    differences: list[Difference] = field(default_factory=list)

    def compare(self, line: int | None, what: str, recorded: Any, actual: Any) -> None:
        """Compare two values exactly."""
        self.compared += 1
        if _canonical(recorded) != _canonical(actual):
            self.differences.append(Difference(line, what, recorded, actual))

    def compare_line(
        self, number: int, line: RecordedLine, outcome: Outcome, all_codes: bool, prefix: str = ""
    ) -> None:
        """Compare error codes and outputs of a line."""
        error = line.error if all_codes or line.error is None else line.error[:1]
        self.compare(number, f"{prefix}error", error, outcome.error)
        recorded, actual = line.outputs or {}, outcome.outputs or {}
        # The text of a stream may differ from the complete answer; it is compared by itself.
        streamed = set((outcome.streamed or [])[:1])
        for name in sorted({*recorded, *actual} - streamed):
            values = recorded.get(name, MISSING), actual.get(name, MISSING)
            self.compare(number, f"{prefix}outputs.{name}", *values)


def check_recording(
    recording: Recording, make_subjects: Sequence[Callable[[], Subject]], *, at_once: int = 32
) -> list[ParityReport]:
    """Replay a recording line by line, and again with many lines at once, and compare.

    The flow's connections lead to a server on loopback that gives the recorded answers.

    Args:
        recording: the recording.
        make_subjects: functions that return a form of the flow; called when the connections are in place.
        at_once: number of lines at once in the second pass; the lines are repeated to be as many.

    Returns:
        One report for each form.
    """
    replay = loopback_server(Replay)
    replay.exchanges = recording.exchanges
    reports = []
    # One server for all forms, because an exported folder looks its connections up only once.
    with replay.running(), replayed_connections(recording.connections, replay.address):
        for make_subject in make_subjects:
            subject = make_subject()
            report = ParityReport(subject.name)
            replay.start_anew()
            try:
                asyncio.run(_check(recording, subject, replay, report, at_once))
            finally:
                subject.close()
            for digest, body in replay.unknown.items():
                report.compare(None, f"the request {digest}", "not recorded", body)
            replay.unknown.clear()
            reports.append(report)
    return reports


async def _check(
    recording: Recording, subject: Subject, replay: Replay, report: ParityReport, at_once: int
) -> None:
    outcomes = []
    # Nodes that run at once send their requests in any order.
    for number, line in enumerate(recording.lines):
        outcome, requests = await _asked(subject.run(line.inputs), replay)
        outcomes.append(outcome)
        report.compare_line(number, line, outcome, subject.all_codes)
        report.compare(number, "requests", sorted(line.requests), sorted(requests))
        if line.streamed is None and not line.stream_requests and not line.stream_error:
            continue
        outcome, requests = await _asked(subject.stream(line.inputs), replay)
        streamed = replace(line, error=line.stream_error)
        if line.stream_error:
            streamed = replace(streamed, outputs=None)
        report.compare_line(number, streamed, outcome, subject.all_codes, "streamed ")
        report.compare(number, "streamed text", line.streamed, outcome.streamed)
        report.compare(
            number, "requests of the stream", sorted(line.stream_requests), sorted(requests)
        )
    aggregated = await subject.aggregate(outcomes)
    if aggregated is not None:
        report.compare(None, "error of the aggregation", recording.metrics_error, aggregated.error)
        if aggregated.metrics is not None:
            report.compare(None, "metrics", recording.metrics, aggregated.metrics)
    if at_once > 1 and recording.lines:
        await _check_at_once(recording, subject, replay, report, at_once)


async def _asked(work: Coroutine[Any, Any, Outcome], replay: Replay) -> tuple[Outcome, list[str]]:
    """Return an outcome and the hashes of the requests that it needed."""
    before = len(replay.requests)
    outcome = await work
    return outcome, replay.requests[before:]


async def _check_at_once(
    recording: Recording, subject: Subject, replay: Replay, report: ParityReport, at_once: int
) -> None:
    replay.start_anew()
    lines = recording.lines
    numbers = [number % len(lines) for number in range(max(at_once, len(lines)))]
    free = asyncio.Semaphore(at_once)

    async def run(number: int) -> Outcome:
        async with free:
            return await subject.run(lines[number].inputs)

    outcomes = await asyncio.gather(*map(run, numbers))
    for number, outcome in zip(numbers, outcomes):
        report.compare_line(number, lines[number], outcome, subject.all_codes, "at once, ")
    sent = {digest for line in lines for digest in line.requests}
    report.compare(None, "requests at once", sorted(sent), sorted(set(replay.requests)))


@contextmanager
def replayed_connections(
    connections: Mapping[str, Mapping[str, str]], address: str
) -> Iterator[None]:
    """Make connections lead to a server inside the block.

    Args:
        connections: connection -> its fields; `endpoint` is a path.
        address: URL of the server, without a path.
    """
    entries = {
        name: {
            "configs": {**fields, "endpoint": address + fields["endpoint"]},
            "secrets": {"key": REPLAY_KEY},
        }
        for name, fields in connections.items()
    }
    before = os.environ.get(FILE_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="phi3-parity-") as folder:
        file = Path(folder) / "connections.json"
        file.write_text(json.dumps(entries), encoding="utf-8")
        os.environ[FILE_VARIABLE] = str(file)
        try:
            yield
        finally:
            os.environ.pop(FILE_VARIABLE, None)
            if before is not None:
                os.environ[FILE_VARIABLE] = before


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
