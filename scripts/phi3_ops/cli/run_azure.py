"""`phi3 run` on Azure: as a job on a cluster, or as a run of an uploaded flow in a Foundry project."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..names import name_argument
from ..progress import waiting
from ..terminal import console, print_text
from ._common import add_config, add_dry_run, integer, positive_int

if TYPE_CHECKING:
    from ..azure import Cloud
    from ..flows import FlowDefinition
    from ..remote_runs import BatchSubmission
    from ..runs import Batch

HOW_TO_FETCH = "the same command fetches its outputs; --follow waits for it"
# Azure's word for a batch -> how long it usually takes until the batch starts.
USUAL_START = {"job": "5 to 10 min until it starts, with a new image 10 to 20 min"}
# Options of a cluster. Their default is None, so that the options that the user has set are known.
CLUSTER_OPTIONS = ("compute", "instances", "mini_batch_size", "retries")


def retry_count(text: str) -> int:
    """Parse an integer of at least 0 for argparse."""
    value = integer(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def arguments(parser: argparse.ArgumentParser) -> None:
    azure = parser.add_argument_group("on Azure")
    azure.add_argument(
        "--on-azure",
        action="store_true",
        help="run as a parallel job on a cluster; the same command again fetches its outputs",
    )
    azure.add_argument(
        "--on-foundry",
        action="store_true",
        help="run the uploaded flow in the Foundry project or workspace; the same command again "
        "fetches its outputs",
    )
    azure.add_argument(
        "--fetch",
        type=name_argument,
        metavar="NAME",
        help="fetch the outputs of this job (also a failed one) or run",
    )
    azure.add_argument(
        "--follow", action="store_true", help="wait until it has ended, then fetch its outputs"
    )
    add_dry_run(azure)
    add_config(azure)
    azure.add_argument(
        "--compute",
        type=name_argument,
        metavar="NAME",
        help="name of the cluster (default: the configuration's)",
    )
    azure.add_argument(
        "--instances", type=positive_int, metavar="N", help="number of nodes (default: 1)"
    )
    azure.add_argument(
        "--mini-batch-size",
        type=positive_int,
        metavar="N",
        help="number of lines that one process gets at once, and that are retried together "
        "(default: 10)",
    )
    azure.add_argument(
        "--retries",
        type=retry_count,
        metavar="N",
        help="number of retries of the lines that the endpoint failed, or whose process was killed "
        "(default: 3)",
    )


def is_requested(args: argparse.Namespace) -> bool:
    """Return whether the batch runs on Azure."""
    return bool(args.on_azure or args.on_foundry or args.fetch)


def misuse(args: argparse.Namespace) -> str | None:
    """Return what is wrong about the combination of options, or None."""
    if args.on_azure and args.on_foundry:
        return "--on-azure and --on-foundry exclude each other"
    if is_requested(args) and (args.resume or args.replay or args.base):
        return "--resume, --replay and --run are for batches on this machine"
    if not is_requested(args) and (args.follow or args.dry_run):
        return "--follow and --dry-run go with --on-azure or --on-foundry"
    if args.fetch and args.dry_run:
        return "--fetch and --dry-run exclude each other"
    options = list(_cluster_settings(args))
    if options and (_is_foundry_run(args) or not is_requested(args)):
        return f"--{options[0].replace('_', '-')} goes with --on-azure"
    return None


def _cluster_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a cluster that the user has set."""
    values = {name: getattr(args, name) for name in CLUSTER_OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def _is_foundry_run(args: argparse.Namespace) -> bool:
    """Return whether the batch is a run of Prompt flow's service, which its name shows."""
    from ..remote_runs import FOUNDRY_RUN_PREFIX

    is_fetched = bool(args.fetch) and str(args.fetch).startswith(FOUNDRY_RUN_PREFIX)
    return bool(args.on_foundry) or (is_fetched and not args.on_azure)


def run_batch(
    args: argparse.Namespace, flow: FlowDefinition, columns: Mapping[str, str], title: str
) -> Batch | None:
    """Submit a batch or find it again, and fetch its outputs if it has ended.

    Returns:
        The fetched run, or None if there are no outputs yet.

    Raises:
        OpsError: the batch cannot be submitted, or it failed as a whole.
    """
    from ..azure import Cloud, load_config, named_errors
    from ..publish import refuse_after_retirement, retirement_notice

    if args.on_foundry:  # `--fetch` alone also works while the service is read-only
        refuse_after_retirement("phi3 run --on-foundry")
    with named_errors("run"):
        submission = _submission(args, Cloud(load_config(args.config)), flow, columns, title)
        if args.fetch:
            return submission.fetch(args.fetch)
        submission.plan().run(console(), dry_run=args.dry_run)
        if args.on_foundry:
            print_text(retirement_notice(), to_stderr=True)
        if args.dry_run:
            return None
        print_text(f"{submission.kind} {submission.name}")
        if args.follow:
            _follow(submission)
        elif not submission.is_completed(submission.name):
            print_text(HOW_TO_FETCH)
            return None
        return submission.fetch(submission.name)


def _follow(submission: BatchSubmission) -> None:
    kind, name = submission.kind, submission.name
    try:
        with waiting(console(), f"{kind} {name}", USUAL_START.get(kind, "")):
            completed = submission.follow()
        if not completed:
            print_text(
                f"the {kind} {name} failed; fetching the answers that it has", to_stderr=True
            )
    except KeyboardInterrupt:
        print_text(f"\nthe {kind} {name} goes on: {HOW_TO_FETCH}")
        raise


def _submission(
    args: argparse.Namespace,
    cloud: Cloud,
    flow: FlowDefinition,
    columns: Mapping[str, str],
    title: str,
) -> BatchSubmission:
    from ..remote_runs import BatchRequest, ClusterRequest, ClusterSubmission, FoundrySubmission

    common: dict[str, Any] = {
        "title": title,
        "connections": flow.connections(args.connection) if args.connection else {},
        "in_flight": args.in_flight,
    }
    if _is_foundry_run(args):
        return FoundrySubmission(cloud, BatchRequest(flow, args.data, columns, **common))
    settings = _cluster_settings(args)
    request = ClusterRequest(flow, args.data, columns, **common, **settings)
    return ClusterSubmission(cloud, request)
