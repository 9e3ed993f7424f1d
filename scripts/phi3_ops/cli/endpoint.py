"""`phi3 endpoint`."""

from __future__ import annotations

import argparse
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from ._common import add_workdir, port

if TYPE_CHECKING:
    from ..endpoint import Deployment

DEFAULT_PORT = 8710


def arguments(parser: argparse.ArgumentParser) -> None:
    add_workdir(parser)
    parser.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="model folder (default: the quickstart's fine-tuned one)",
    )
    parser.add_argument(
        "--deployment",
        action="append",
        default=[],
        metavar="NAME=DIR[:PERCENT]",
        help="in place of --model, once for each model: its deployment's name and share of the traffic",
    )
    parser.add_argument(
        "--request-timeout-ms",
        type=int,
        default=180_000,
        metavar="MS",
        help="answer 408 after so many milliseconds (default: %(default)s)",
    )
    parser.add_argument(
        "--max-concurrent-requests",
        type=int,
        default=32,
        metavar="N",
        help="work on N requests at once, let N more wait, answer 429 beyond (default: %(default)s)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=port,
        default=DEFAULT_PORT,
        help="port to listen on, 0 for a free one (default: %(default)s)",
    )
    parser.add_argument("--name", default="tuned", help="what to call it (default: %(default)s)")
    parser.add_argument(
        "--connection",
        default="phi3",
        metavar="NAME",
        help="connection that is pointed here (default: %(default)s)",
    )
    parser.add_argument(
        "--no-connect",
        action="store_true",
        help="write no connection; the key comes from PHI3_ENDPOINT_KEY",
    )
    parser.add_argument(
        "--faults",
        type=Path,
        metavar="FILE",
        help="fail on purpose, by the rules of this YAML file: to see what a flow does then",
    )
    parser.add_argument(
        "--stop", action="store_true", help="stop what runs in the background, and do nothing else"
    )


def run(args: argparse.Namespace) -> int:
    return _stop(args) if args.stop else _serve(args)


def _stop(args: argparse.Namespace) -> int:
    from ..endpoint import running_endpoints, stop_endpoint

    running = list(running_endpoints(args.workdir))
    for one in running:
        stop_endpoint(args.workdir, one.name)
        print(f"stopped {one.name} ({one.url})")
    if not running:
        print(f"no endpoint of {args.workdir} is running")
    return 0


def _serve(args: argparse.Namespace) -> int:
    import logging

    from ..endpoint import (
        endpoint_state_file,
        find_endpoint,
        load_fault_rules,
        register_endpoint,
        serve_models,
    )

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("phi3.endpoint").setLevel(logging.INFO)  # one line a request
    rules = load_fault_rules(args.faults) if args.faults else None
    deployments = _deployments(args)
    models = ", ".join(str(deployment.model) for deployment in deployments)
    key = _key(args)

    def ready(url: str) -> None:
        url = f"{url}/score"
        register_endpoint(args.workdir, args.name, url, models)
        for each in deployments if args.deployment else ():
            print(f"deployment {each.name}: {each.model}, {each.weight} % of the traffic")
        print(f"{'the endpoint' if args.deployment else models} answers at {url}", flush=True)
        if not args.no_connect:
            from ..pf import save_connection

            state = save_connection(args.connection, {"endpoint": url}, key)
            print(f"connection {args.connection!r} {state}; Ctrl-C stops", flush=True)

    try:
        serve_models(
            deployments, host=args.host, port=args.port, key=key, faults=rules, ready=ready
        )
    finally:
        own = find_endpoint(args.workdir, args.name)
        if own and own.pid == os.getpid():
            endpoint_state_file(args.workdir, args.name).unlink(missing_ok=True)
    return 0


def _deployments(args: argparse.Namespace) -> list[Deployment]:
    """What `--deployment` or `--model` name. Raises OpsError, EndpointError."""
    from ..endpoint import Deployment
    from ..errors import OpsError

    if args.model and args.deployment:
        raise OpsError("--model and --deployment are both given", "Give one of them.")
    settings = {
        "request_timeout_ms": args.request_timeout_ms,
        "max_concurrent_requests_per_instance": args.max_concurrent_requests,
    }
    if not args.deployment:
        model = args.model or args.workdir / "model" / "model"
        return [Deployment("blue", model, **settings)]
    found = []
    for text in args.deployment:
        match = re.fullmatch(r"([^=]+)=(.+?)(?::([0-9]{1,3}))?", text)
        if not match or not (match[3] or len(args.deployment) == 1):
            fix = "Give NAME=DIR:PERCENT, such as blue=models/a:90."
            raise OpsError(f"--deployment {text} names no deployment with its traffic", fix)
        weight = int(match[3] or 100)
        found.append(Deployment(match[1], Path(match[2]), weight, **settings))
    return found


def _key(args: argparse.Namespace) -> str:
    """From the environment, else the connection's own, else a new one."""
    from ..endpoint import ENDPOINT_KEY_VARIABLE
    from ..errors import OpsError

    if key := os.environ.get(ENDPOINT_KEY_VARIABLE):
        return key
    if args.no_connect:
        raise OpsError(f"{ENDPOINT_KEY_VARIABLE} is not set", "Set it, or leave out --no-connect.")
    from ..pf import connection_key

    return connection_key(args.connection) or secrets.token_urlsafe(32)
