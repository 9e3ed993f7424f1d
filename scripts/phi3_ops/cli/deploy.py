"""`phi3 deploy`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._common import add_config, add_dry_run


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Deploy a completed job's model behind the configured endpoint, or a flow behind one of its own. "
        "The new deployment gets traffic only after it has answered; until then the old one serves; a "
        "failure puts the traffic back."
    )
    add_config(parser)
    add_dry_run(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--job", metavar="NAME", help="the job (default: the newest that completed)")
    what.add_argument("--flow", type=Path, help="a flow in place of a job: folder or name")
    parser.add_argument(
        "--endpoint",
        metavar="NAME",
        help="the flow's endpoint (default: the model's endpoint's name, and the flow's)",
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

    from ..azure import Cloud, load_config, named_errors
    from ..deploy import RolloutOptions
    from ..errors import OpsError

    if args.endpoint and args.flow is None:
        raise OpsError("--endpoint is for --flow", "The model's endpoint is named in phi3.yaml.")
    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    options = RolloutOptions(
        job=args.job,
        canary=args.canary,
        mirror=args.mirror,
        soak_s=args.soak,
        drain_s=args.drain,
        keep_old=args.keep_old,
    )
    cloud = Cloud(load_config(args.config))
    with named_errors("deploy"):
        _deployer(args, cloud, options, say).plan().run(console, dry_run=args.dry_run)
    return 0


def _deployer(args: argparse.Namespace, cloud: Any, options: Any, say: Any) -> Any:
    from ..deploy import FlowDeployer, ModelDeployer
    from ..flows import FlowDefinition

    if args.flow is None:
        return ModelDeployer(cloud, options, say)
    return FlowDeployer(cloud, options, say, FlowDefinition.read(args.flow), args.endpoint)
