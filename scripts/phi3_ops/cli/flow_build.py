"""`phi3 flow build`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..terminal import print_text


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("flow", type=Path, metavar="FLOW", help="folder or name")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write; it must be empty or not exist",
    )


def run(args: argparse.Namespace) -> int:
    from ..flows import FlowDefinition, build_image_context

    flow = FlowDefinition.read(args.flow)
    context = build_image_context(flow, args.out)
    variables = "".join(f" -e {name}" for name in context.variables)
    image = f"phi3-{flow.folder.resolve().name.replace('_', '-').lower()}"
    print_text(f"{args.out} contains {flow.folder} and the wheel of its tools")
    print_text(context.searched)
    print_text("To run it:")
    print_text(f"  docker build -t {image} {args.out}")
    print_text(f"  docker run -p 127.0.0.1:8080:8080{variables} {image}")
    return 0
