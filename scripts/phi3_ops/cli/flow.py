"""`phi3 flow`: its subcommands are the rows of `SUBCOMMANDS`."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import paths
from ..names import name_argument
from ..terminal import console, print_text
from . import flow_build, flow_export, flow_record
from ._common import add_config, add_dry_run, add_engine, positive_number
from ._records import add_json, print_json, print_table

if TYPE_CHECKING:
    from ..flows import FlowState
    from ..publish import FoundryProject

LOCAL_COLUMNS = ("flow", "version", "state", "tools", "content", "other_versions")
AZURE_COLUMNS = ("flow", "version", "here", "there", "id")


@dataclass(frozen=True)
class Subcommand:
    """A subcommand: its line in `phi3 flow --help`, its arguments, and its function."""

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Versions of flows. Run `phi3 flow lock` after each new `tags.version`, `phi3 flow lock --check` "
        "in CI, and `phi3 flow upload` for a Foundry project or an Azure ML workspace."
    )
    commands = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND")
    for name, subcommand in SUBCOMMANDS.items():
        sub = commands.add_parser(name, help=subcommand.help, description=subcommand.help)
        # `--verbose` is accepted before and after the subcommand; without it here, the former counts.
        sub.add_argument(
            "--verbose",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error",
        )
        sub.set_defaults(parser=sub)
        subcommand.arguments(sub)


def run(args: argparse.Namespace) -> int:
    if args.subcommand is None:
        args.parser.print_help()
        return 0
    return SUBCOMMANDS[args.subcommand].run(args)


# -- versions --------------------------------------------------------------------------------------


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder",
        type=Path,
        default=paths.flows_folder(),
        metavar="DIR",
        help="folder with the flows' folders and their lock file (default: flows/ in the current folder "
        "if it has a lock, else the flows of this package)",
    )


def _lock_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "flows",
        nargs="*",
        type=name_argument,
        metavar="FLOW",
        help="name of a flow (default: every flow of the folder)",
    )
    _add_folder(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing, and exit 1 if a flow was changed or is not locked",
    )


def _lock(args: argparse.Namespace) -> int:
    from ..errors import OpsError
    from ..flows import NOT_LOCKED, flow_states, lock_flows, refuse_changed_flows

    read_states = flow_states if args.check else lock_flows
    states = read_states(args.folder, args.flows)
    refuse_changed_flows(states)
    new = [state.label for state in states if state.status == NOT_LOCKED]
    if new and args.check:
        fix = "Run `phi3 flow lock`, and commit the lock file."
        raise OpsError(f"not locked: {', '.join(new)}", fix)
    for label in new:
        print_text(f"locked {label}")
    if not new:
        labels = ", ".join(state.label for state in states)
        print_text(f"these flows match their lock: {labels}")
    return 0


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    _add_folder(parser)
    parser.add_argument(
        "--azure",
        action="store_true",
        help="compare with the flows that are uploaded to the configured workspace",
    )
    add_config(parser)
    add_json(parser)


def _list(args: argparse.Namespace) -> int:
    from ..flows import flow_states

    states = flow_states(args.folder)
    columns: Sequence[str] = AZURE_COLUMNS if args.azure else LOCAL_COLUMNS
    records = (
        _azure_records(args.config, states) if args.azure else list(map(_local_record, states))
    )
    if args.json:
        print_json(records)
    else:
        formats = {"content": _short_hash, "tools": _or_dash, "other_versions": _or_dash}
        print_table(records, columns, formats=formats)
    return 0


def _azure_records(config: Path | None, states: Sequence[FlowState]) -> list[dict[str, Any]]:
    from ..azure import named_errors
    from ..publish import flow_rows

    with named_errors("flow list"):
        rows = flow_rows(states, _project(config).all())
    return [dict(zip(AZURE_COLUMNS, astuple(row))) for row in rows]


def _local_record(state: FlowState) -> dict[str, Any]:
    return {
        "flow": state.name,
        "version": state.version,
        "state": state.status,
        "tools": state.entry.tools if state.entry else None,
        "content": state.sha256,
        "other_versions": list(state.other_versions),
    }


def _or_dash(value: str | list[str] | None) -> str:
    text = ", ".join(value) if isinstance(value, list) else value
    return text or "–"


def _short_hash(sha256: str) -> str:
    return sha256[:12]


# -- Azure -----------------------------------------------------------------------------------------


def _project(config: Path | None) -> FoundryProject:
    from ..azure import Cloud, load_config
    from ..publish import FoundryProject

    return FoundryProject(Cloud(load_config(config)))


def _say(line: str) -> None:
    console().print(line, highlight=False, soft_wrap=True)


def _flow_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "flow", type=name_argument, help="name of the flow, which is that of its folder"
    )
    _add_folder(parser)
    add_config(parser)


def _upload_arguments(parser: argparse.ArgumentParser) -> None:
    _flow_arguments(parser)
    add_dry_run(parser)


def _upload(args: argparse.Namespace) -> int:
    from ..publish import refuse_after_retirement, require_locked

    refuse_after_retirement("phi3 flow upload")
    project, state = _project(args.config), require_locked(args.flow, args.folder)
    return _upload_to(project, state, dry_run=args.dry_run)


def _upload_to(project: FoundryProject, state: FlowState, *, dry_run: bool) -> int:
    from ..azure import named_errors
    from ..publish import plan_upload, retirement_notice, staged_files, staged_flow

    with staged_flow(state) as folder, named_errors("flow upload"):
        if dry_run:
            for file in staged_files(folder):
                _say(f"{file.size:>9,}  {file.path}")
        plan_upload(project, state, folder).run(console(), dry_run=dry_run)
    print_text(retirement_notice(), to_stderr=True)
    return 0


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    _flow_arguments(parser)
    parser.add_argument(
        "--local",
        action="store_true",
        help="read the connections from Prompt flow's store, not from the project",
    )
    add_engine(parser, default="promptflow")  # on which uploaded flows run
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=900.0,
        metavar="S",
        help="time limit for each step, such as the installation, in seconds (default: %(default)g)",
    )


def _check(args: argparse.Namespace) -> int:
    from ..azure import named_errors
    from ..publish import (
        check_flow,
        display_name,
        local_connection,
        require_locked,
        shared_connection,
        staged_flow,
    )

    read_connection = local_connection
    if not args.local:
        read_connection = functools.partial(shared_connection, _project(args.config).cloud)
    state = require_locked(args.flow, args.folder)
    with staged_flow(state) as folder, named_errors("flow check"):
        check_flow(folder, read_connection, _say, limit_s=args.timeout, engine=args.engine)
    where = "on this machine" if args.local else "in the project"
    _say(f"{display_name(state)} is ready to run {where}")
    _say(f"next: phi3 flow upload {args.flow}")
    return 0


def _pull_arguments(parser: argparse.ArgumentParser) -> None:
    _flow_arguments(parser)
    parser.add_argument(
        "--version", metavar="X.Y.Z", help="version to download (default: the newest upload)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder to write (default: {paths.WORKDIR}/flows/FLOW)",
    )


def _pull(args: argparse.Namespace) -> int:
    import tempfile

    from ..azure import named_errors
    from ..publish import diff_flow, pull_flow, stage_flow

    out = args.out or paths.WORKDIR / "flows" / args.flow
    with named_errors("flow pull"):
        flow = pull_flow(_project(args.config), args.flow, out, args.version)
    _say(f"{flow.display_name} ({flow.name}) is in {out}")
    local = args.folder / args.flow
    if not (local / "flow.dag.yaml").is_file():
        _say(f"{local} does not exist, so there is nothing to compare it with")
        return 0
    with tempfile.TemporaryDirectory() as parent:
        stage_flow(local, Path(parent) / "flow")
        lines = diff_flow(Path(parent) / "flow", out)
    for line in lines or [f"it is the same as the files that {local} would upload"]:
        _say(line)
    return 0


def _promote_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "flow", type=name_argument, help="name of the flow, which is that of its folder"
    )
    _add_folder(parser)
    parser.add_argument(
        "--from",
        dest="source",
        type=name_argument,
        required=True,
        metavar="NAME",
        help="environment that has the version: the configuration phi3.NAME.yaml",
    )
    parser.add_argument(
        "--to",
        dest="target",
        type=name_argument,
        required=True,
        metavar="NAME",
        help="environment that gets the version: the configuration phi3.NAME.yaml",
    )
    parser.add_argument(
        "--baseline", metavar="RUN", help="scored run that the version must not be worse than"
    )
    parser.add_argument(
        "--candidate",
        metavar="RUN",
        help="scored run of this version against the endpoint of the environment that gets it",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="data file of both runs")
    parser.add_argument(
        "--thresholds",
        type=Path,
        metavar="FILE",
        help="margins (default: thresholds.yaml next to the flow of the scores)",
    )
    add_dry_run(parser)


def _promote(args: argparse.Namespace) -> int:
    from ..azure import named_errors
    from ..errors import OpsError
    from ..publish import (
        Gate,
        display_name,
        gate_reasons,
        judge_gate,
        project_for_gate,
        refuse_after_retirement,
        refuse_unfit_version,
        require_locked,
    )

    refuse_after_retirement("phi3 flow promote")
    if not (args.baseline and args.candidate):
        what = "a promotion needs a comparison, and its runs are missing"
        raise OpsError(what, "Give --baseline RUN and --candidate RUN; `phi3 runs` lists runs.")
    state = require_locked(args.flow, args.folder)
    gate = Gate(args.baseline, args.candidate, args.data, args.thresholds)
    with named_errors("flow promote"):
        source, target = project_for_gate(args.source), project_for_gate(args.target)
        refuse_unfit_version(state, source, target)
        comparison = judge_gate(state, target, gate)
    for line in gate_reasons(comparison):
        _say(line)
    if comparison.exit_code:
        _say(f"{display_name(state)} is not promoted to {args.target}")
        return comparison.exit_code
    return _upload_to(target, state, dry_run=args.dry_run)


SUBCOMMANDS = {
    "lock": Subcommand("lock the versions that are not locked yet", _lock_arguments, _lock),
    "list": Subcommand("list the flows, their versions and their locks", _list_arguments, _list),
    "check": Subcommand(
        "prove that a locked flow would run: connection, endpoint, requirements",
        _check_arguments,
        _check,
    ),
    "upload": Subcommand(
        "upload a locked flow to the configured project or workspace", _upload_arguments, _upload
    ),
    "pull": Subcommand(
        "download an uploaded flow, and compare it with the local one", _pull_arguments, _pull
    ),
    "build": Subcommand(
        "write the build context of an image for `docker build`",
        flow_build.arguments,
        flow_build.run,
    ),
    "export": Subcommand(
        "write a flow as Python code that runs without Prompt flow",
        flow_export.arguments,
        flow_export.run,
    ),
    "record": Subcommand(
        "store what a flow answers, as the proof for other forms of it",
        flow_record.record_arguments,
        flow_record.record,
    ),
    "parity": Subcommand(
        "replay a recording without network, and compare the answers exactly",
        flow_record.parity_arguments,
        flow_record.parity,
    ),
    "promote": Subcommand(
        "upload a locked version to another environment, if its comparison passes there",
        _promote_arguments,
        _promote,
    ),
}
