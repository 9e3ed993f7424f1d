"""`phi3 provision`."""

from __future__ import annotations

import argparse

from ._common import add_config, add_dry_run, add_yes, console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make what the configuration names and what is not there yet: workspace (with storage account, "
        "key vault, application insights and container registry), identity, cluster, and the "
        "identity's roles. What is there is never changed. Looks at the quota first; asks before it "
        "makes anything. Exit code 1: it stopped, and the next run goes on from there."
    )
    add_config(parser)
    add_dry_run(parser)
    add_yes(parser)
    parser.add_argument(
        "--create-group", action="store_true", help="make the resource group if there is none"
    )
    parser.add_argument(
        "--contributor",
        action="store_true",
        help="give the identity Contributor on the resource group as well, as the tutorials do",
    )


def run(args: argparse.Namespace) -> int:
    from ..azure import Cloud, Provision, ProvisionOptions, load_config

    cloud = Cloud(load_config(args.config))
    options = ProvisionOptions(create_group=args.create_group, contributor=args.contributor)
    plan = Provision(cloud, options).plan()
    where = f"{cloud.config.azure.location}, subscription {cloud.config.azure.subscription_id}"
    plan.run_when_confirmed(console(), f"Make this in {where}?", dry_run=args.dry_run, yes=args.yes)
    return 0
