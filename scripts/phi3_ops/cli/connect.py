"""`phi3 connect`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..names import name_argument
from ..progress import waiting
from ..terminal import console, print_text
from ._common import add_config, add_dry_run
from ._next_step import after_connection

KEY_VARIABLE = "PHI3_KEY"
FIELDS = ("endpoint", "contract", "template", "deployment", "auth", "model")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"Write the connection that the flows use. The key comes from {KEY_VARIABLE}, or the command "
        "asks for it. It is never an argument, because every process could read it there."
    )
    parser.add_argument(
        "--name",
        "--connection",
        dest="name",
        metavar="NAME",
        type=name_argument,
        default="phi3",
        help="name of the connection (default: %(default)s)",
    )
    _add_fields(parser)
    parser.add_argument(
        "--no-check", action="store_true", help="write the connection without asking the endpoint"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace the connection even if it points to another endpoint on another machine",
    )
    azure = parser.add_argument_group("on Azure")
    azure.add_argument(
        "--azure",
        action="store_true",
        help="take URL and key from the configured endpoint, and write the workspace's connection too",
    )
    azure.add_argument(
        "--rotate",
        action="store_true",
        help="with --azure: regenerate both keys without downtime",
    )
    add_config(azure)
    add_dry_run(azure)
    parser.add_argument(
        "--delete", action="store_true", help="delete the connection instead of writing it"
    )
    parser.add_argument(
        "--import-promptflow",
        action="store_true",
        help="copy all connections of Prompt flow's store into the package's own store, which works "
        "without Prompt flow",
    )


def _add_fields(parser: argparse.ArgumentParser) -> None:
    """Add the options of FIELDS, the fields of a connection."""
    parser.add_argument(
        "--endpoint", metavar="URL", help="scoring URL of the endpoint (default: PHI3_ENDPOINT)"
    )
    parser.add_argument(
        "--contract",
        choices=["auto", "chat", "mlflow", "openai"],
        help="wire format (default: detect it)",
    )
    parser.add_argument(
        "--template",
        choices=["client", "server"],
        help="side that applies the chat template in the mlflow contract: server for a model that "
        "`phi3 finetune` made, deployed without a scoring script (default: client)",
    )
    parser.add_argument(
        "--deployment",
        type=name_argument,
        help="deployment to ask, regardless of the traffic rules",
    )
    parser.add_argument("--auth", choices=["key", "entra"], help="way to sign in (default: key)")
    parser.add_argument("--model", help="name of the model, if the endpoint serves several")


def run(args: argparse.Namespace) -> int:
    if not args.azure and (args.rotate or args.dry_run or args.config):
        problem = "--rotate, --dry-run and --config go with --azure; see phi3 connect --help"
        print_text(f"phi3 connect: {problem}", to_stderr=True)
        return 2
    if args.azure:
        return _azure(args.config, rotate=args.rotate, dry_run=args.dry_run, replace=args.replace)
    if args.delete:
        return _delete(args.name)
    if args.import_promptflow:
        return _import_promptflow()
    fields = {name: getattr(args, name) for name in FIELDS if getattr(args, name)}
    fields.setdefault("endpoint", os.environ.get("PHI3_ENDPOINT", ""))
    return _write(args.name, fields, check=not args.no_check, replace=args.replace)


def _azure(config: Path | None, *, rotate: bool, dry_run: bool, replace: bool) -> int:
    from ..azure import Cloud, load_config, named_errors
    from ..deploy import plan_key_connection, rotate_keys

    cloud = Cloud(load_config(config))
    with named_errors("connect"):
        if rotate and not dry_run:
            with waiting(console(), "regenerating both keys", "1 to 5 min"):
                key = rotate_keys(cloud, replace=replace)
            print_text(
                f"both connections now use the {key} key; the other key was regenerated as well"
            )
        else:
            plan_key_connection(cloud, replace=replace).run(console(), dry_run=dry_run)
    return 0


def _delete(name: str) -> int:
    from ..pf import delete_connection

    deleted = delete_connection(name)
    print_text(f"deleted {name!r}" if deleted else f"the connection {name!r} does not exist")
    return 0


def _import_promptflow() -> int:
    from ..pf import import_promptflow_connections

    copied, skipped = import_promptflow_connections()
    print_text(f"copied {len(copied)} connections{': ' if copied else ''}{', '.join(copied)}")
    for name in skipped:
        print_text(f"skipped {name!r}: it is not a CustomConnection", to_stderr=True)
    return 0


def _write(name: str, fields: dict[str, str], *, check: bool, replace: bool) -> int:
    from ..errors import OpsError
    from ..pf import probe_endpoint, refuse_replacing_connection, save_connection

    if not fields["endpoint"]:
        fix = "Give --endpoint URL, or --azure for the configured endpoint."
        raise OpsError("the URL of the endpoint is missing", fix)
    if not replace:
        refuse_replacing_connection(name, fields["endpoint"], "Give --replace, or another --name.")
    key = "" if fields.get("auth") == "entra" else _read_key()
    if check:  # before anything is written
        reply = probe_endpoint(fields, key)
        print_text(
            f"{fields['endpoint']} answers in {reply.latency_s:.2f} s ({reply.contract} contract)"
        )
    print_text(f"connection {name!r} {save_connection(name, fields, key)}")
    after_connection(name)
    return 0


def _read_key() -> str:
    from ..errors import OpsError

    if key := os.environ.get(KEY_VARIABLE):
        return key
    if not sys.stdin.isatty():
        raise OpsError("the key is missing", f"Set {KEY_VARIABLE}.")
    from getpass import getpass

    return getpass("Key of the endpoint: ")
