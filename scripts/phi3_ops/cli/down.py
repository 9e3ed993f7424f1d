"""`phi3 down`."""

from __future__ import annotations

import argparse

from ..terminal import console
from ._common import add_config, add_dry_run, add_yes


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Delete the resources whose tags say that this product created them: the endpoint with its "
        "deployments, the workspace's connection, the local connection to the endpoint, the cluster, "
        "the identity and its roles. The workspace stays, with its data, models, job history and "
        "images. After that, only storage and registry cost a little per day; the command waits until "
        "all machines are gone. Untagged resources, and anything that contains them, are never "
        "deleted. The command asks before it deletes. Exit code 1: it stopped; the next run continues "
        "from there."
    )
    add_config(parser)
    add_dry_run(parser)
    add_yes(parser)
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument(
        "--endpoint-only", action="store_true", help="delete only the endpoint with its deployments"
    )
    scope.add_argument(
        "--expired",
        action="store_true",
        help="delete only expired endpoints and expired idle clusters; an endpoint expires with its "
        "newest deployment",
    )
    scope.add_argument(
        "--everything",
        action="store_true",
        help="also delete the workspace, storage, key vault, logs and registry, with all data, "
        "permanently; and the resource group if this product created it and nothing else is in it",
    )


def run(args: argparse.Namespace) -> int:
    from ..azure import (
        ENDPOINT_ONLY,
        EVERYTHING,
        EXPIRING,
        RESOURCES_IN_USE,
        Cloud,
        load_config,
        plan_teardown,
    )

    scopes = {
        "endpoint_only": ENDPOINT_ONLY,
        "expired": EXPIRING,
        "everything": EVERYTHING,
    }
    kinds = next((scopes[name] for name in scopes if getattr(args, name)), RESOURCES_IN_USE)
    cloud = Cloud(load_config(args.config))
    teardown = plan_teardown(cloud, kinds, expired=args.expired)
    screen = console()
    for resource in teardown.kept:
        line = f"  kept     {resource.kind} {resource.name}: {resource.reason}"
        screen.print(line, highlight=False, soft_wrap=True)
    question = "Delete this, with all data, permanently?" if args.everything else "Delete this?"
    teardown.plan.run_when_confirmed(screen, question, dry_run=args.dry_run, yes=args.yes)
    return 0
