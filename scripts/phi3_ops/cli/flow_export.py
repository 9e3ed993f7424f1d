"""`phi3 flow export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..terminal import print_text

TARGETS = ("agent-framework", "fastapi", "evaluator")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("flow", type=Path, metavar="FLOW", help="folder or name")
    parser.add_argument(
        "--to",
        choices=TARGETS,
        required=True,
        help="form of the code: a workflow of Agent Framework, a FastAPI service, or an evaluator class "
        "for azure-ai-evaluation",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write: empty, not existing, or of an earlier export",
    )
    parser.add_argument("--force", action="store_true", help="replace files that you have edited")
    parser.add_argument(
        "--llm",
        choices=("phi3",),
        help="what llm nodes become: phi3 lets your Phi-3 answer (default: llm nodes are refused)",
    )
    parser.add_argument(
        "--recording",
        type=Path,
        metavar="DIR",
        help="folder of `phi3 flow record` for test_parity.py (default: recordings/FLOW, if it exists)",
    )


def run(args: argparse.Namespace) -> int:
    from ..publish import export_flow

    summary = export_flow(
        args.flow,
        args.to,
        args.out,
        force=args.force,
        llm=args.llm,
        recording=args.recording,
    )
    for name in summary.written:
        print_text(f"wrote {args.out / name}")
    for name in summary.removed:
        print_text(f"removed {args.out / name}")
    for name in summary.kept:
        print_text(
            f"kept {args.out / name}, which was edited and is not part of the export any more"
        )
    if not summary.written and not summary.removed:
        print_text(f"nothing to change: {args.out} has this export already")
    else:
        print_text(f"{args.out / 'README.md'} says how to run it")
    return 0
