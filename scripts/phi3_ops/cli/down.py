"""`phi3 down`."""

from __future__ import annotations

import argparse

from ._common import add_config, add_dry_run, add_yes, console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Delete what this product made, by its tags: the endpoint with its deployments, the workspace's "
        "connection and the one here that leads to the endpoint, the cluster, the identity and its "
        "roles. The workspace stays, with what it rests on (data, models, the jobs' history, images): "
        "storage and registry cost a little by the day, machines nothing any more: it waits until they "
        "are gone. What lacks the tags is never touched, nor is anything that holds it. "
        "Asks before it deletes. Exit code 1: it stopped, and the next run goes on from there."
    )
    add_config(parser)
    add_dry_run(parser)
    add_yes(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--endpoint-only", action="store_true", help="only the endpoint with its deployments"
    )
    what.add_argument(
        "--expired",
        action="store_true",
        help="only endpoints and idle clusters whose expiry is past; an endpoint's is that of its "
        "newest deployment",
    )
    what.add_argument(
        "--everything",
        action="store_true",
        help="also workspace, storage, key vault, logs and registry, with all data, for good; and the "
        "resource group if this product made it and nothing else is in it",
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

    kinds = {
        "endpoint_only": ENDPOINT_ONLY,
        "expired": EXPIRING,
        "everything": EVERYTHING,
    }
    chosen = next((kinds[name] for name in kinds if getattr(args, name)), RESOURCES_IN_USE)
    cloud = Cloud(load_config(args.config))
    ending = plan_teardown(cloud, chosen, expired=args.expired)
    screen = console()
    for line in ending.kept:
        screen.print(f"  kept     {line}", highlight=False, markup=False, soft_wrap=True)
    question = "Delete this, with all data, for good?" if args.everything else "Delete this?"
    ending.plan.run_when_confirmed(screen, question, dry_run=args.dry_run, yes=args.yes)
    return 0
