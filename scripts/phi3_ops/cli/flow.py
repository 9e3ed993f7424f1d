"""`phi3 flow`: its subcommands are the rows of `SUBCOMMANDS`."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..names import name_argument
from ..progress import waiting
from ..terminal import console, print_text
from . import flow_build, flow_export, flow_record, flow_versions
from ._common import (
    Subcommand,
    add_config,
    add_dry_run,
    add_engine,
    add_subcommands,
    positive_number,
    run_subcommand,
)
from .flow_versions import add_folder, project

if TYPE_CHECKING:
    from ..flows import FlowState
    from ..publish import FoundryProject


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Versions of flows. Run `phi3 flow lock` after each new `tags.version`, `phi3 flow lock --check` "
        "in CI, and `phi3 flow upload` for a Foundry project or an Azure ML workspace."
    )
    add_subcommands(parser, SUBCOMMANDS)


def run(args: argparse.Namespace) -> int:
    return run_subcommand(args, SUBCOMMANDS)


# -- Azure -----------------------------------------------------------------------------------------


def _say(line: str) -> None:
    console().print(line, highlight=False, soft_wrap=True)


def _flow_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "flow", type=name_argument, help="name of the flow, which is that of its folder"
    )
    add_folder(parser)
    add_config(parser)


def _upload_arguments(parser: argparse.ArgumentParser) -> None:
    _flow_arguments(parser)
    add_dry_run(parser)


def _upload(args: argparse.Namespace) -> int:
    from ..publish import refuse_after_retirement, require_locked

    refuse_after_retirement("phi3 flow upload")
    target, state = project(args.config), require_locked(args.flow, args.folder)
    return _upload_to(target, state, dry_run=args.dry_run)


def _upload_to(target: FoundryProject, state: FlowState, *, dry_run: bool) -> int:
    from ..azure import named_errors
    from ..publish import plan_upload, retirement_notice, staged_files, staged_flow

    with staged_flow(state) as folder, named_errors("flow upload"):
        if dry_run:
            for file in staged_files(folder):
                _say(f"{file.size:>9,}  {file.path}")
        plan_upload(target, state, folder).run(console(), dry_run=dry_run)
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
        read_connection = functools.partial(shared_connection, project(args.config).cloud)
    state = require_locked(args.flow, args.folder)
    with (
        staged_flow(state) as folder,
        named_errors("flow check"),
        waiting(console(), f"checking {args.flow}"),
    ):
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
        flow = pull_flow(project(args.config), args.flow, out, args.version)
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
    add_folder(parser)
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
    "lock": Subcommand(
        "lock the versions that are not locked yet",
        flow_versions.lock_arguments,
        flow_versions.lock,
    ),
    "list": Subcommand(
        "list the flows, their versions and their locks",
        flow_versions.list_arguments,
        flow_versions.list_flows,
    ),
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
