"""`phi3 provision`."""

from __future__ import annotations

import argparse

from ..terminal import console
from ._common import add_config, add_dry_run, add_yes
from ._next_step import print_next


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Create the configured resources that do not exist yet: workspace (with storage account, key "
        "vault, application insights and container registry), identity, cluster, and the identity's "
        "roles. Existing resources are never changed. The command checks the quota first, and asks "
        "before it creates anything. Exit code 1: it stopped; the next run continues from there."
    )
    add_config(parser)
    add_dry_run(parser)
    add_yes(parser)
    parser.add_argument(
        "--create-group",
        action="store_true",
        help="create the resource group if it does not exist",
    )
    parser.add_argument(
        "--contributor",
        action="store_true",
        help="also give the identity the role Contributor on the resource group, as the tutorials do",
    )
    parser.add_argument(
        "--register",
        action="store_true",
        help="register resource providers that the subscription lacks; without --yes, the question asks "
        "for that as well",
    )


def run(args: argparse.Namespace) -> int:
    from ..azure import Cloud, Provision, ProvisionOptions, load_config

    cloud = Cloud(load_config(args.config))
    options = ProvisionOptions(
        create_group=args.create_group,
        contributor=args.contributor,
        register=args.register or not args.yes,
    )
    plan = Provision(cloud, options).plan()
    azure = cloud.config.azure
    question = f"Create this in {azure.location}, subscription {azure.subscription_id}?"
    plan.run_when_confirmed(console(), question, dry_run=args.dry_run, yes=args.yes)
    if not args.dry_run:
        print_next("phi3", "finetune", "--follow")
    return 0
