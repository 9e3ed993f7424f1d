"""`phi3 flow record` and `phi3 flow parity`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..names import name_argument
from ..progress import ProgressLines, waiting
from ..terminal import console, print_text
from ._columns import add_column_mapping, parse_column_mapping
from ._common import positive_int

if TYPE_CHECKING:
    from collections.abc import Callable

    from phi3_tools.parity import ParityReport, Recording, Subject

    from ..flows import FlowDefinition

EQUAL, DIFFERENT, NOTHING_COMPARED = 0, 1, 2
SHOWN = 10  # differences that are printed


def record_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run a flow over the rows of a file, and store inputs, outputs, streamed texts, errors, metrics "
        "and the endpoint's answers. `phi3 flow parity` compares them with another form of the flow. "
        "The recording contains the texts of questions and answers, but no key."
    )
    parser.add_argument("flow", type=Path, help="folder of a flow, or name of a shipped flow")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help="data file, JSONL with one row per line",
    )
    add_column_mapping(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the recording (default: recordings/ and the name of the flow)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace a recording of another flow, or of other content of the flow",
    )
    parser.add_argument(
        "--connection",
        type=name_argument,
        help="connection for every node (default: the connections of the flow)",
    )
    parser.add_argument(
        "--engine",
        choices=["phi3", "promptflow"],
        help="engine whose answers are stored (default: promptflow where it is installed, else phi3)",
    )


def record(args: argparse.Namespace) -> int:
    from .. import paths
    from ..flows import FlowDefinition
    from ..pf import is_installed, require_promptflow
    from ..publish import record_flow
    from ..runs import choose_columns, line_inputs

    flow = FlowDefinition.read(args.flow)
    columns = choose_columns(flow, args.data, parse_column_mapping(args.column_mapping))
    rows = list(line_inputs(args.data, None, columns).values())
    engine = args.engine or ("promptflow" if is_installed() else "phi3")
    if engine == "promptflow":
        require_promptflow("--engine promptflow")
    out = args.out or Path("recordings") / flow.folder.resolve().name
    _refuse_replacing(out, flow, force=args.force)
    report = ProgressLines("recorded", "lines")
    recording = record_flow(
        flow,
        rows,
        out,
        engine=engine,
        connection=args.connection,
        on_line=lambda number: report(number + 1, len(rows)),
    )
    failed = sum(line.error is not None for line in recording.lines)
    streamed = sum(line.streamed is not None for line in recording.lines)
    print_text(
        f"recorded {len(recording.lines)} lines ({failed} failed, {streamed} streamed) and "
        f"{len(recording.exchanges)} requests with {recording.engine} in {out}"
    )
    is_known = flow.folder.resolve().parent in (paths.flows_folder(), paths.FLOWS)
    print_text(f"next: phi3 flow parity {out}" + ("" if is_known else f" --flow {flow.folder}"))
    return 0


def _refuse_replacing(out: Path, flow: FlowDefinition, *, force: bool) -> None:
    """Raise OpsError if a folder has a file that a recording of a flow must not replace.

    Args:
        out: folder for the recording; it need not exist.
        flow: the flow.
        force: whether a recording of another flow, or of other content of the flow, may be replaced.
    """
    from phi3_tools import ConfigError
    from phi3_tools.parity import RECORDING_FILE, read_recording

    from ..errors import OpsError
    from ..flows import content_hash

    path = out / RECORDING_FILE
    if not os.path.lexists(path):
        return
    try:
        recorded = read_recording(path).flow
        name, sha256 = recorded["name"], recorded["sha256"]
    except (ConfigError, LookupError, TypeError) as error:
        what = f"{path} exists, and it is not a recording of phi3"
        raise OpsError(what, "Move it, or give another --out.") from error
    fix = "Give --force to replace it, or another --out."
    if name != flow.folder.resolve().name and not force:
        raise OpsError(f"{path} is a recording of the flow {name!r}", fix)
    if sha256 != content_hash(flow.folder) and not force:
        raise OpsError(f"{path} was recorded before the files of the flow {name!r} changed", fix)


def parity_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Replay a recording without network, and compare outputs, streamed texts, requests, error codes "
        "and metrics exactly. Exit code: 0 if everything is equal, 1 with the first differences, 2 if "
        "nothing can be compared."
    )
    parser.add_argument("recording", type=Path, help="folder of `phi3 flow record`")
    parser.add_argument(
        "--flow",
        type=Path,
        help="folder or name of the flow (default: the flow of the project, or the shipped flow, that "
        "the recording names)",
    )
    parser.add_argument(
        "--app",
        type=Path,
        metavar="DIR",
        help="folder of `phi3 flow export`, whose code and service are compared instead of the engine",
    )
    parser.add_argument(
        "--at-once",
        type=positive_int,
        default=32,
        metavar="N",
        help="number of lines at once in the second pass (default: %(default)s)",
    )


def parity(args: argparse.Namespace) -> int:
    from phi3_tools import Phi3Error
    from phi3_tools.parity import check_recording, read_recording

    try:
        recording = read_recording(args.recording)
    except Phi3Error as error:
        print_text(f"phi3 flow parity: {error}", to_stderr=True)
        return NOTHING_COMPARED
    if not recording.lines:
        print_text(f"phi3 flow parity: {args.recording} has no lines", to_stderr=True)
        return NOTHING_COMPARED
    try:
        with waiting(console(), f"comparing {len(recording.lines)} lines"):
            reports = check_recording(recording, _subjects(args, recording), at_once=args.at_once)
    except Phi3Error as error:
        print_text(f"phi3 flow parity: {error}", to_stderr=True)
        return NOTHING_COMPARED
    for report in reports:
        _print_report(report, len(recording.lines), args.at_once)
    return DIFFERENT if any(report.differences for report in reports) else EQUAL


def _subjects(args: argparse.Namespace, recording: Recording) -> list[Callable[[], Subject]]:
    """Return functions that make what is compared."""
    from phi3_tools.flow import FlowError, load_flow
    from phi3_tools.parity import engine_subject, exported_subject, served_subject

    from ..errors import OpsError
    from ..flows import FlowDefinition, content_hash

    if args.app:
        services = [lambda: served_subject(args.app)] if (args.app / "app.py").is_file() else []
        return [lambda: exported_subject(args.app), *services]
    definition = FlowDefinition.read(args.flow or _known_flow(recording))
    if content_hash(definition.folder) != recording.flow["sha256"]:
        recorded = recording.flow["version"]
        what = f"note: the flow is version {definition.version}, the recording is of {recorded}"
        print_text(f"{what}, and their content differs", to_stderr=True)
    try:
        flow = load_flow(definition.folder)
    except FlowError as error:
        raise OpsError(f"{definition.folder} cannot run: {error}") from error
    return [lambda: engine_subject(flow)]


def _known_flow(recording: Recording) -> Path:
    """Return the folder of the project's or shipped flow that a recording names.

    A recording may come from somebody else, so its name never leads to another folder, whose code would
    run.

    Raises:
        OpsError: the name is not valid, or neither the project nor phi3 has such a flow.
    """
    from .. import paths
    from ..errors import OpsError
    from ..names import require_name

    name = require_name(recording.flow["name"], "the flow's name in the recording")
    for flows in (paths.flows_folder(), paths.FLOWS):
        if (flows / name / "flow.dag.yaml").is_file():
            return flows / name
    what = f"the recording is of {name}, which is neither a flow of the project nor a shipped one"
    raise OpsError(what, "Give the folder of the flow with --flow.")


def _print_report(report: ParityReport, lines: int, at_once: int) -> None:
    scope = f"{lines} lines, one by one and {at_once} at once"
    if not report.differences:
        print_text(f"{report.subject}: equal ({report.compared} comparisons; {scope})")
        return
    count = len(report.differences)
    print_text(f"{report.subject}: {count} of {report.compared} comparisons differ ({scope})")
    for difference in report.differences[:SHOWN]:
        print_text(f"  {difference}")
