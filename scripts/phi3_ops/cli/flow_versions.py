"""`phi3 flow lock` and `phi3 flow list`, and what the other subcommands of `phi3 flow` share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import paths
from ..names import name_argument
from ..terminal import print_text
from ._common import add_config
from ._records import add_json, print_json, print_table

if TYPE_CHECKING:
    from ..flows import FlowState
    from ..publish import FoundryProject

LOCAL_COLUMNS = ("flow", "version", "state", "tools", "content", "other_versions")
AZURE_COLUMNS = ("flow", "version", "here", "there", "id")


def project(config: Path | None) -> FoundryProject:
    """Return the configured Foundry project or workspace."""
    from ..azure import Cloud, load_config
    from ..publish import FoundryProject

    return FoundryProject(Cloud(load_config(config)))


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add `--folder`."""
    parser.add_argument(
        "--folder",
        type=Path,
        default=paths.flows_folder(),
        metavar="DIR",
        help="folder with the flows' folders and their lock file (default: flows/ in the current folder "
        "if it has a lock, else the flows of this package)",
    )


def lock_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "flows",
        nargs="*",
        type=name_argument,
        metavar="FLOW",
        help="name of a flow (default: every flow of the folder)",
    )
    add_folder(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing, and exit 1 if a flow was changed or is not locked",
    )


def lock(args: argparse.Namespace) -> int:
    from ..errors import OpsError
    from ..flows import NOT_LOCKED, flow_states, lock_flows, refuse_changed_flows

    read_states = flow_states if args.check else lock_flows
    states = read_states(args.folder, args.flows)
    refuse_changed_flows(states)
    new = [state.label for state in states if state.status == NOT_LOCKED]
    if new and args.check:
        fix = "Run `phi3 flow lock`, and commit the lock file."
        raise OpsError(f"not locked: {', '.join(new)}", fix)
    for label in new:
        print_text(f"locked {label}")
    if not new:
        labels = ", ".join(state.label for state in states)
        print_text(f"these flows match their lock: {labels}")
    return 0


def list_arguments(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)
    parser.add_argument(
        "--azure",
        action="store_true",
        help="compare with the flows that are uploaded to the configured workspace",
    )
    add_config(parser)
    add_json(parser)


def list_flows(args: argparse.Namespace) -> int:
    from ..flows import flow_states

    states = flow_states(args.folder)
    columns: Sequence[str] = AZURE_COLUMNS if args.azure else LOCAL_COLUMNS
    records = (
        _azure_records(args.config, states) if args.azure else list(map(_local_record, states))
    )
    if args.json:
        print_json(records)
    else:
        formats = {"content": _short_hash, "tools": _or_dash, "other_versions": _or_dash}
        print_table(records, columns, formats=formats)
    return 0


def _azure_records(config: Path | None, states: Sequence[FlowState]) -> list[dict[str, Any]]:
    from ..azure import named_errors
    from ..publish import flow_rows

    with named_errors("flow list"):
        rows = flow_rows(states, project(config).all())
    return [dict(zip(AZURE_COLUMNS, astuple(row))) for row in rows]


def _local_record(state: FlowState) -> dict[str, Any]:
    return {
        "flow": state.name,
        "version": state.version,
        "state": state.status,
        "tools": state.entry.tools if state.entry else None,
        "content": state.sha256,
        "other_versions": list(state.other_versions),
    }


def _or_dash(value: str | list[str] | None) -> str:
    text = ", ".join(value) if isinstance(value, list) else value
    return text or "–"


def _short_hash(sha256: str) -> str:
    return sha256[:12]
