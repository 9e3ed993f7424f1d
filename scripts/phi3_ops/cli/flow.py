"""`phi3 flow`: one row of `SUBCOMMANDS` each."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from . import flow_build
from ._common import add_config, add_dry_run, console, positive_number

COLUMNS = ("flow", "version", "state", "tools", "content", "other versions")


@dataclass(frozen=True)
class Subcommand:
    """What `phi3 flow --help` says of it, its arguments, and what it does."""

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Versions of the flows. `phi3 flow lock` after each new `tags.version`, `phi3 flow lock --check` "
        "in CI, `phi3 flow upload` to a Foundry project or an Azure ML workspace."
    )
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, subcommand in SUBCOMMANDS.items():
        sub = commands.add_parser(name, help=subcommand.help, description=subcommand.help)
        # Also behind the subcommand; left out there, the one in front of it counts.
        sub.add_argument(
            "--verbose",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error",
        )
        subcommand.arguments(sub)


def run(args: argparse.Namespace) -> int:
    return SUBCOMMANDS[args.subcommand].run(args)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder",
        type=Path,
        default=paths.FLOWS,
        metavar="DIR",
        help="folder that holds the flows' folders and their lock (default: this package's own)",
    )


def _lock_arguments(parser: argparse.ArgumentParser) -> None:
    _add_folder(parser)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where something would be written"
    )


def _lock(args: argparse.Namespace) -> int:
    from ..errors import OpsError
    from ..flows import NOT_LOCKED, flow_states, lock_flows, refuse_changed_flows

    found = flow_states(args.folder) if args.check else lock_flows(args.folder)
    refuse_changed_flows(found)
    new = [f"{state.name} {state.version}" for state in found if state.status == NOT_LOCKED]
    if new and args.check:
        raise OpsError(
            f"not locked: {', '.join(new)}", "Run `phi3 flow lock`, and commit the lock."
        )
    for state in new:
        print(f"locked {state}")
    if not new:
        print(f"all {len(found)} flows match their lock")
    return 0


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    _add_folder(parser)
    parser.add_argument(
        "--azure", action="store_true", help="beside what is uploaded to the configured workspace"
    )
    add_config(parser)


def _list(args: argparse.Namespace) -> int:
    from ..flows import flow_states

    states = flow_states(args.folder)
    if not args.azure:
        console().print(_table(states))
        return 0
    from ..azure import named_errors
    from ..publish import upload_rows

    with named_errors("flow list"):
        rows = upload_rows(states, _project(args).all())
    console().print(_lines(("flow", "version", "here", "there", "id"), rows))
    return 0


def _table(found: Any) -> Any:
    return _lines(
        COLUMNS,
        [
            (
                state.name,
                state.version,
                state.status,
                state.entry.tools if state.entry else "–",
                state.sha256[:12],
                ", ".join(state.other_versions) or "–",
            )
            for state in found
        ],
    )


def _lines(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


# -- Azure -----------------------------------------------------------------------------------------


def _project(args: argparse.Namespace) -> Any:
    from ..azure import Cloud, load_config
    from ..publish import FoundryProject

    return FoundryProject(Cloud(load_config(args.config)))


def _say(line: str) -> None:
    console().print(line, highlight=False, markup=False, soft_wrap=True)


def _flow_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("flow", help="name of the flow: that of its folder")
    _add_folder(parser)
    add_config(parser)


def _upload_arguments(parser: argparse.ArgumentParser) -> None:
    _flow_arguments(parser)
    add_dry_run(parser)


def _upload(args: argparse.Namespace) -> int:
    from ..publish import require_locked

    project, state = _project(args), require_locked(args.flow, args.folder)
    return _send(project, state, dry_run=args.dry_run)


def _send(project: Any, state: Any, *, dry_run: bool) -> int:
    from ..azure import named_errors
    from ..publish import list_uploads, plan_upload, staged_flow

    with staged_flow(state) as folder, named_errors("flow upload"):
        if dry_run:
            for name, size in list_uploads(folder):
                _say(f"{size:>9,}  {name}")
        plan_upload(project, state, folder).run(console(), dry_run=dry_run)
    return 0


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    _flow_arguments(parser)
    parser.add_argument(
        "--local",
        action="store_true",
        help="take the connections from prompt flow's store, not from the project",
    )
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=900.0,
        metavar="S",
        help="most seconds for each step, such as installing (default: %(default)g)",
    )


def _check(args: argparse.Namespace) -> int:
    from ..azure import named_errors
    from ..publish import (
        check_flow,
        check_with_local_connection,
        check_with_shared_connection,
        display_name,
        require_locked,
        staged_flow,
    )

    connection = check_with_local_connection
    if not args.local:
        connection = functools.partial(check_with_shared_connection, _project(args).cloud)
    state = require_locked(args.flow, args.folder)
    with staged_flow(state) as folder, named_errors("flow check"):
        check_flow(folder, connection, _say, limit_s=args.timeout)
    _say(f"{display_name(state)} is ready")
    return 0


def _pull_arguments(parser: argparse.ArgumentParser) -> None:
    _flow_arguments(parser)
    parser.add_argument("--version", metavar="X.Y.Z", help="which one (default: the newest upload)")
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
        found = pull_flow(_project(args), args.flow, out, args.version)
    _say(f"{found.display_name} ({found.name}) is in {out}")
    local = args.folder / args.flow
    if not (local / "flow.dag.yaml").is_file():
        _say(f"there is no {local} to compare it with")
        return 0
    with tempfile.TemporaryDirectory() as parent:
        stage_flow(local, Path(parent) / "flow")
        lines = diff_flow(Path(parent) / "flow", out)
    for line in lines or [f"it is what {local} would be uploaded as"]:
        _say(line)
    return 0


def _promote_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("flow", help="name of the flow: that of its folder")
    _add_folder(parser)
    ends = (("--from", "source", "where the version is"), ("--to", "target", "where it goes"))
    for option, dest, what in ends:
        parser.add_argument(
            option,
            dest=dest,
            required=True,
            metavar="NAME",
            help=f"environment {what}: the configuration phi3.NAME.yaml",
        )
    parser.add_argument(
        "--baseline", metavar="RUN", help="scored run that the version may not be worse than"
    )
    parser.add_argument(
        "--candidate",
        metavar="RUN",
        help="scored run of this version against the endpoint of the environment that it goes to",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="data file of both runs")
    parser.add_argument(
        "--thresholds",
        type=Path,
        metavar="FILE",
        help="margins (default: thresholds.yaml beside the flow of the scores)",
    )
    add_dry_run(parser)


def _promote(args: argparse.Namespace) -> int:
    from ..azure import named_errors
    from ..errors import OpsError
    from ..publish import display_name, require_locked

    try:
        from ..publish import Gate, gate_reasons, judge_gate, project_for_gate, refuse_unfit_run
    except ModuleNotFoundError as error:
        fix = "pip install 'phi3-promptflow[azure,eval]'"
        raise OpsError(f"the package {error.name} is not installed", fix) from error
    if not (args.baseline and args.candidate):
        what = "a version is promoted by a comparison, and no runs for it are named"
        raise OpsError(what, "Give --baseline RUN and --candidate RUN; `pf run list` shows them.")
    state = require_locked(args.flow, args.folder)
    gate = Gate(args.baseline, args.candidate, args.data, args.thresholds)
    with named_errors("flow promote"):
        source, target = (project_for_gate(name) for name in (args.source, args.target))
        refuse_unfit_run(state, source, target)
        report = judge_gate(state, target, gate)
    for line in gate_reasons(report):
        _say(line)
    if report.exit_code:
        _say(f"{display_name(state)} is not promoted to {args.target}")
        return report.exit_code
    return _send(target, state, dry_run=args.dry_run)


SUBCOMMANDS = {
    "lock": Subcommand("lock the versions that are new", _lock_arguments, _lock),
    "list": Subcommand("list the flows, their versions and what is locked", _list_arguments, _list),
    "check": Subcommand(
        "prove that a locked flow would run: connection, endpoint, requirements",
        _check_arguments,
        _check,
    ),
    "upload": Subcommand(
        "upload a locked flow to the configured project or workspace", _upload_arguments, _upload
    ),
    "pull": Subcommand(
        "bring an uploaded flow back, and compare it with the one here", _pull_arguments, _pull
    ),
    "build": Subcommand(
        "write what `docker build` makes an image of", flow_build.arguments, flow_build.run
    ),
    "promote": Subcommand(
        "upload a locked version to another environment, if its comparison passes there",
        _promote_arguments,
        _promote,
    ),
}
