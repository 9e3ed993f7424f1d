"""`phi3 deploy`."""

from __future__ import annotations

import argparse

from ._common import add_config, add_dry_run


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Deploy a completed job's model behind the configured endpoint. The new deployment gets traffic "
        "only after it has answered; until then the old one serves; a failure puts the traffic back."
    )
    add_config(parser)
    add_dry_run(parser)
    parser.add_argument(
        "--job", metavar="NAME", help="the job (default: the newest that completed)"
    )
    parser.add_argument(
        "--canary",
        type=_percentages,
        default=(10, 50, 100),
        metavar="P,P,…",
        help="traffic of the new deployment, step by step (default: 10,50,100)",
    )
    parser.add_argument(
        "--mirror",
        type=int,
        default=0,
        metavar="P",
        help="first copy P %% of the live traffic to it",
    )
    parser.add_argument(
        "--soak", type=float, default=0.0, metavar="S", help="wait S seconds after each step"
    )
    parser.add_argument(
        "--drain",
        type=float,
        default=30.0,
        metavar="S",
        help="leave the old deployment S seconds to finish (default: %(default)s)",
    )
    parser.add_argument("--keep-old", action="store_true", help="do not delete the old deployment")


def _percentages(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from .. import config, deploy
    from ..cloud import Cloud, named_errors

    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    options = deploy.Options(
        job=args.job,
        canary=args.canary,
        mirror=args.mirror,
        soak_s=args.soak,
        drain_s=args.drain,
        keep_old=args.keep_old,
    )
    cloud = Cloud(config.load(args.config))
    with named_errors("deploy"):
        plan = deploy.Deployer(cloud, options, say).plan()
        plan.run(console, dry_run=args.dry_run)
    return 0
