"""`phi3 run` on Azure: as a job on a cluster, or as a run of an uploaded flow in a Foundry project."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._common import add_config, add_dry_run, console, whole

if TYPE_CHECKING:
    from ..azure import Cloud
    from ..flows import FlowDefinition
    from ..remote_runs import BatchSubmission
    from ..runs import Batch

BACK = "the same command brings its outputs back; --follow waits for it"


def retries(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


# Of a cluster alone: type, default, help. Left out, they stay None: so what was given shows.
CLUSTER: dict[str, tuple[Any, Any, str]] = {
    "compute": (str, None, "cluster (default: the configuration's)"),
    "instances": (whole, 1, "nodes (default: 1)"),
    "mini_batch_size": (
        whole,
        10,
        "lines that are run in turn, and repeated together (default: 10)",
    ),
    "retries": (retries, 3, "of a mini-batch with a failed line (default: 3)"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    azure = parser.add_argument_group("on Azure")
    azure.add_argument(
        "--on-azure",
        action="store_true",
        help="as a parallel job on a cluster; the same command again brings its outputs back",
    )
    azure.add_argument(
        "--on-foundry",
        action="store_true",
        help="as a run of the uploaded flow in the Foundry project or workspace; likewise",
    )
    azure.add_argument(
        "--fetch",
        metavar="NAME",
        help="bring back the outputs of that job, one that failed included, or of that run",
    )
    azure.add_argument("--follow", action="store_true", help="wait for it, then fetch it")
    add_dry_run(azure)
    add_config(azure)
    for name, (kind, _, what) in CLUSTER.items():
        metavar = "NAME" if kind is str else "N"
        azure.add_argument(f"--{_words(name)}", type=kind, metavar=metavar, help=what)


def wanted(args: argparse.Namespace) -> bool:
    """Whether the batch is one on Azure."""
    return bool(args.on_azure or args.on_foundry or args.fetch)


def misuse(args: argparse.Namespace) -> str | None:
    """What is wrong about the options together, or None."""
    if args.on_azure and args.on_foundry:
        return "--on-azure and --on-foundry exclude each other"
    if wanted(args) and (args.resume or args.replay or args.base):
        return "--resume, --replay and --run are for batches on this machine"
    if not wanted(args) and (args.follow or args.dry_run):
        return "--follow and --dry-run go with --on-azure or --on-foundry"
    if args.fetch and args.dry_run:
        return "--fetch and --dry-run exclude each other"
    given = [name for name in CLUSTER if getattr(args, name) is not None]
    if given and (_is_run(args) or not wanted(args)):
        return f"--{_words(given[0])} goes with --on-azure"
    return None


def _words(name: str) -> str:
    return name.replace("_", "-")


def _is_run(args: argparse.Namespace) -> bool:
    """Whether it is a run of prompt flow's service; those are told by their names."""
    from ..remote_runs import FOUNDRY_RUN_PREFIX

    fetched = bool(args.fetch) and str(args.fetch).startswith(FOUNDRY_RUN_PREFIX)
    return bool(args.on_foundry) or (fetched and not args.on_azure)


def batch(
    args: argparse.Namespace, flow: FlowDefinition, columns: Mapping[str, str]
) -> Batch | None:
    """Submit it, or find it; what came back, or None where nothing has yet.

    Raises:
        OpsError: it cannot be submitted, or it failed as a whole.
    """
    from ..azure import Cloud, load_config, named_errors
    from ..runs import COMPLETED

    with named_errors("run"):
        submission = _submission(args, Cloud(load_config(args.config)), flow, columns)
        name = args.fetch
        if not name:
            submission.plan().run(console(), dry_run=args.dry_run)
            if args.dry_run:
                return None
            name = submission.name
            print(f"{submission.kind} {name}")
            if args.follow:
                _follow(submission)
            elif submission.status(name) != COMPLETED:
                print(BACK)
                return None
        return submission.fetch(name)


def _follow(submission: BatchSubmission) -> None:
    kind, name = submission.kind, submission.name
    try:
        if not submission.follow():
            print(f"the {kind} {name} failed; fetching what it answered", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\nthe {kind} {name} goes on: {BACK}", flush=True)
        raise


def _submission(
    args: argparse.Namespace, cloud: Cloud, flow: FlowDefinition, columns: Mapping[str, str]
) -> BatchSubmission:
    from ..remote_runs import BatchRequest, ClusterRequest, ClusterSubmission, FoundrySubmission

    common: dict[str, Any] = {
        "title": args.name or flow.folder.resolve().name,
        "connections": flow.connections(args.connection) if args.connection else {},
        "in_flight": args.in_flight,
    }
    if _is_run(args):
        request = BatchRequest(flow, args.data, columns, **common)
        return FoundrySubmission(cloud, request)
    given = {name: getattr(args, name) for name in CLUSTER}
    spread = {name: CLUSTER[name][1] if value is None else value for name, value in given.items()}
    return ClusterSubmission(cloud, ClusterRequest(flow, args.data, columns, **common, **spread))
