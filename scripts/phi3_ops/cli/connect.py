"""`phi3 connect`."""

from __future__ import annotations

import argparse
import os
import sys

from ._common import add_config, add_dry_run

KEY_VARIABLE = "PHI3_KEY"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"Write the connection that the flows use. The key comes from {KEY_VARIABLE}, else it is "
        "asked for: never from the command line, where every process could read it."
    )
    parser.add_argument(
        "--name", default="phi3", help="the connection's name (default: %(default)s)"
    )
    parser.add_argument(
        "--endpoint", metavar="URL", help="the scoring URL (default: PHI3_ENDPOINT)"
    )
    parser.add_argument(
        "--contract",
        choices=["auto", "chat", "mlflow", "openai"],
        help="wire format (default: find out)",
    )
    parser.add_argument(
        "--template",
        choices=["client", "server"],
        help="who applies the chat template in the mlflow contract: server for a model that "
        "`phi3 finetune` made, deployed without a scoring script (default: client)",
    )
    parser.add_argument("--deployment", help="deployment to ask past the traffic rules")
    parser.add_argument("--auth", choices=["key", "entra"], help="how to sign in (default: key)")
    parser.add_argument("--model", help="model name, where an endpoint serves several")
    parser.add_argument("--no-check", action="store_true", help="do not ask the endpoint anything")
    azure = parser.add_argument_group("on Azure")
    azure.add_argument(
        "--azure",
        action="store_true",
        help="take URL and key from the configured endpoint; writes the workspace's connection too",
    )
    azure.add_argument(
        "--rotate",
        action="store_true",
        help="with --azure: make new keys, old ones valid until then",
    )
    add_config(azure)
    add_dry_run(azure)
    parser.add_argument("--delete", action="store_true", help="delete the connection instead")


def run(args: argparse.Namespace) -> int:
    from ..pf import delete_connection, probe_endpoint, save_connection

    if args.azure:
        return _azure(args)
    if args.delete:
        print(
            f"deleted {args.name!r}"
            if delete_connection(args.name)
            else f"no connection {args.name!r}"
        )
        return 0
    names = ("endpoint", "contract", "template", "deployment", "auth", "model")
    fields = {name: getattr(args, name) for name in names if getattr(args, name)}
    fields.setdefault("endpoint", os.environ.get("PHI3_ENDPOINT", ""))
    key = "" if args.auth == "entra" else _key()
    if not args.no_check:  # before anything is written
        reply = probe_endpoint(fields, key)
        print(
            f"{fields['endpoint']} answers in {reply.latency_s:.2f} s ({reply.contract} contract)"
        )
    print(f"connection {args.name!r} {save_connection(args.name, fields, key)}")
    return 0


def _azure(args: argparse.Namespace) -> int:
    from rich.console import Console

    from ..azure import Cloud, load_config, named_errors
    from ..deploy import plan_key_connection, rotate_keys

    cloud = Cloud(load_config(args.config))
    with named_errors("connect"):
        if args.rotate and not args.dry_run:
            print(
                f"both connections now hold the {rotate_keys(cloud)} key; the other one was replaced"
            )
        else:
            plan_key_connection(cloud).run(Console(), dry_run=args.dry_run)
    return 0


def _key() -> str:
    from ..errors import OpsError

    if key := os.environ.get(KEY_VARIABLE):
        return key
    if not sys.stdin.isatty():
        raise OpsError("no key was given", f"Set {KEY_VARIABLE}.")
    from getpass import getpass

    return getpass("Key of the endpoint: ")
