"""`phi3 status`."""

from __future__ import annotations

import argparse

from ._common import add_config, console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the endpoints, deployments and clusters that this product made in the workspace: what they "
        "run on, since when, until when and for whom, and the machines that are paid for by the hour. "
        "`phi3 down` ends them."
    )
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from ..azure import Cloud, hourly_cost, load_config, status_rows, status_table

    found = status_rows(Cloud(load_config(args.config)))
    hourly = hourly_cost(found)
    if args.json:
        print(json.dumps({"items": found, "hourly": hourly}, indent=2))
        return 0
    screen = console()
    if found:
        screen.print(status_table(found))
    machines = ", ".join(f"{size} x {count}" for size, count in hourly.items())
    screen.print(f"paid for by the hour: {machines or 'nothing'}", highlight=False, soft_wrap=True)
    return 0
