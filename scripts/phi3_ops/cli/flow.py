"""`phi3 flow`: one row of `SUBCOMMANDS` each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from . import flow_build
from ._common import add_config, add_dry_run, console

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
    from .. import flows
    from ..errors import OpsError

    found = flows.states(args.folder) if args.check else flows.write(args.folder)
    flows.refuse_changed(found)
    new = [f"{state.name} {state.version}" for state in found if state.status == flows.NEW]
    if new and args.check:
        raise OpsError(
            f"not locked: {', '.join(new)}", "Run `phi3 flow lock`, and commit the lock."
        )
    for state in new:
        print(f"locked {state}")
    if not new:
        print(f"{len(found)} flows are as they were locked")
    return 0


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    _add_folder(parser)
    parser.add_argument(
        "--azure", action="store_true", help="beside what is uploaded to the configured workspace"
    )
    add_config(parser)


def _list(args: argparse.Namespace) -> int:
    from .. import flows

    states = flows.states(args.folder)
    if not args.azure:
        console().print(_table(states))
        return 0
    from .. import flow_upload
    from ..cloud import named_errors

    with named_errors("flow list"):
        rows = flow_upload.rows(states, _project(args).all())
    lines = [(row.flow, row.version, row.local, row.uploaded, row.id or "–") for row in rows]
    console().print(_lines(("flow", "version", "here", "there", "id"), lines))
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
                ", ".join(state.earlier) or "–",
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
    from .. import config
    from ..cloud import Cloud
    from ..flow_upload import Project

    return Project(Cloud(config.load(args.config)))


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
    from .. import flow_upload
    from ..cloud import named_errors

    project, state = _project(args), flow_upload.locked(args.flow, args.folder)
    with flow_upload.staged(state) as folder, named_errors("flow upload"):
        if args.dry_run:
            for name, size in flow_upload.listing(folder):
                _say(f"{size:>9,}  {name}")
        flow_upload.plan(project, state, folder).run(console(), dry_run=args.dry_run)
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

    from .. import flow_upload
    from ..cloud import named_errors

    out = args.out or paths.WORKDIR / "flows" / args.flow
    with named_errors("flow pull"):
        found = flow_upload.pull(_project(args), args.flow, out, args.version)
    _say(f"{found.display_name} ({found.name}) is in {out}")
    local = args.folder / args.flow
    if not (local / "flow.dag.yaml").is_file():
        _say(f"there is no {local} to compare it with")
        return 0
    with tempfile.TemporaryDirectory() as parent:
        flow_upload.stage(local, Path(parent) / "flow")
        lines = flow_upload.diff(Path(parent) / "flow", out)
    for line in lines or [f"it is what {local} would be uploaded as"]:
        _say(line)
    return 0


SUBCOMMANDS = {
    "lock": Subcommand("lock the versions that are new", _lock_arguments, _lock),
    "list": Subcommand("list the flows, their versions and what is locked", _list_arguments, _list),
    "upload": Subcommand(
        "upload a locked flow to the configured project or workspace", _upload_arguments, _upload
    ),
    "pull": Subcommand(
        "bring an uploaded flow back, and compare it with the one here", _pull_arguments, _pull
    ),
    "build": Subcommand(
        "write what `docker build` makes an image of", flow_build.arguments, flow_build.run
    ),
}
