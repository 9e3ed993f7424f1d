"""`phi3 deploy`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..names import name_argument
from ..terminal import console
from ._common import add_config, add_dry_run, integer, number
from ._next_step import print_next

if TYPE_CHECKING:
    from ..azure import Cloud
    from ..deploy import Deployment


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Deploy the model of a completed job behind the configured endpoint, or a flow behind an "
        "endpoint of its own. The new deployment gets traffic only after it has answered; until then "
        "the old one serves. If a step fails, the traffic is put back."
    )
    add_config(parser)
    add_dry_run(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--job",
        type=name_argument,
        metavar="NAME",
        help="job to deploy (default: the newest completed job)",
    )
    source.add_argument(
        "--flow", type=Path, help="flow to deploy instead of a job: its folder or name"
    )
    parser.add_argument(
        "--endpoint",
        type=name_argument,
        metavar="NAME",
        help="endpoint for the flow (default: name of the model's endpoint, then that of the flow)",
    )
    parser.add_argument(
        "--canary",
        type=percentages,
        default=(10, 50, 100),
        metavar="P,P,…",
        help="steps of the new deployment's traffic in percent (default: 10,50,100)",
    )
    parser.add_argument(
        "--mirror",
        type=integer,
        default=0,
        metavar="P",
        help="first copy P %% of the live traffic to the new deployment",
    )
    parser.add_argument(
        "--soak",
        type=number,
        default=0.0,
        metavar="S",
        help="seconds to wait after each step (default: %(default)s)",
    )
    parser.add_argument(
        "--drain",
        type=number,
        default=30.0,
        metavar="S",
        help="seconds that the old deployment has to finish its requests (default: %(default)s)",
    )
    parser.add_argument("--keep-old", action="store_true", help="do not delete the old deployment")


def percentages(text: str) -> tuple[int, ...]:
    """Parse percentages that are separated by commas, for argparse."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of percentages, for example 10,50,100"
        ) from None


def run(args: argparse.Namespace) -> int:
    from ..azure import Cloud, load_config, named_errors
    from ..deploy import Rollout, RolloutOptions
    from ..errors import OpsError

    if args.endpoint and args.flow is None:
        raise OpsError("--endpoint needs --flow", "phi3.yaml names the model's endpoint.")
    screen = console()

    def print_line(line: str) -> None:
        screen.print(line, highlight=False, soft_wrap=True)

    options = RolloutOptions(
        canary=args.canary,
        mirror=args.mirror,
        soak_s=args.soak,
        drain_s=args.drain,
        keep_old=args.keep_old,
    )
    cloud = Cloud(load_config(args.config))
    with named_errors("deploy"):
        deployment = _deployment(cloud, args.job, args.flow, args.endpoint)
        plan = Rollout(cloud, options, deployment, print_line).plan()
        plan.run(screen, dry_run=args.dry_run)
    if not args.dry_run and args.flow is None:
        print_next("phi3", "connect", "--azure")
    return 0


def _deployment(
    cloud: Cloud, job: str | None, flow: Path | None, endpoint: str | None
) -> Deployment:
    from ..deploy import FlowDeployment, ModelDeployment
    from ..flows import FlowDefinition

    if flow is None:
        return ModelDeployment(cloud, job)
    return FlowDeployment(cloud, FlowDefinition.read(flow), endpoint)
