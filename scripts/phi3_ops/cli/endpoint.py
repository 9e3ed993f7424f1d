"""`phi3 endpoint`."""

from __future__ import annotations

import argparse
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..names import name_argument
from ..terminal import VisibleHandler, console, print_text
from ._common import add_workdir, port
from ._next_step import after_connection

if TYPE_CHECKING:
    from ..endpoint import Deployment

DEFAULT_PORT = 8710


def arguments(parser: argparse.ArgumentParser) -> None:
    add_workdir(parser)
    _add_model_options(parser)
    _add_server_options(parser)
    _add_connection_options(parser)
    parser.add_argument(
        "--faults",
        type=Path,
        metavar="FILE",
        help="YAML file with rules by which requests fail on purpose, to test how a flow handles it",
    )
    parser.add_argument(
        "--stop",
        action="store_true",
        help="stop the endpoints that run in the background, and exit",
    )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="model folder, GGUF file or short name such as smollm2 (default: the fine-tuned model of "
        "the quickstart)",
    )
    parser.add_argument(
        "--deployment",
        action="append",
        default=[],
        metavar="NAME=MODEL[:PERCENT]",
        help="name, model and share of the traffic of a deployment; replaces --model, and can be "
        "repeated",
    )


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--request-timeout-ms",
        type=int,
        default=180_000,
        metavar="MS",
        help="time limit for an answer in milliseconds; later ones are 408 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-concurrent-requests",
        type=int,
        default=32,
        metavar="N",
        help="number of requests that are processed at once; N more can wait, and further ones are 429 "
        "(default: %(default)s)",
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
    parser.add_argument(
        "--name",
        type=name_argument,
        default="tuned",
        help="name of the endpoint (default: %(default)s)",
    )


def _add_connection_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connection",
        type=name_argument,
        default="phi3",
        metavar="NAME",
        help="connection that gets the endpoint's URL and key (default: %(default)s)",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace the connection even if it points to another machine",
    )
    parser.add_argument(
        "--no-connect",
        action="store_true",
        help="do not write a connection; the key is read from PHI3_ENDPOINT_KEY",
    )


def run(args: argparse.Namespace) -> int:
    return _stop(args.workdir) if args.stop else _serve(args)


def _stop(workdir: Path) -> int:
    from ..endpoint import running_endpoints, stop_all_endpoints

    urls = {endpoint.name: endpoint.url for endpoint in running_endpoints(workdir)}
    stopped = stop_all_endpoints(workdir)
    for name in stopped:
        print_text(f"stopped {name} ({urls.get(name, 'it was still starting')})")
    if not stopped:
        print_text(f"no endpoint of {workdir} is running")
    return 0


def _serve(args: argparse.Namespace) -> int:
    import logging

    from rich.text import Text

    from ..endpoint import load_fault_rules, own_endpoint_name, register_endpoint, serve_models

    logging.basicConfig(
        format="%(asctime)s %(message)s", level=logging.WARNING, handlers=[VisibleHandler()]
    )
    logging.getLogger("phi3.endpoint").setLevel(logging.INFO)  # one line per request
    rules = load_fault_rules(args.faults) if args.faults else None
    deployments = _deployments(args)
    key = _key(connect=not args.no_connect)
    if not (args.no_connect or args.replace):
        _refuse_replacing(args.connection)

    models = ", ".join(str(deployment.model) for deployment in deployments)
    screen = console(to_stderr=True)
    spinner = screen.status(Text(f"loading {models}"))

    def loading() -> None:
        if screen.is_terminal:
            spinner.start()
        else:
            print_text(f"loading {models}", to_stderr=True)

    def ready(url: str, runtimes: Mapping[str, str]) -> None:
        spinner.stop()
        url = f"{url}/score"
        runtime = "; ".join(dict.fromkeys(runtimes.values()))
        register_endpoint(args.workdir, args.name, url, models, runtime)
        for deployment in deployments:
            print_text(
                _describe(deployment, runtimes[deployment.name], share=bool(args.deployment))
            )
        print_text(f"the endpoint answers at {url}")
        if not args.no_connect:
            from ..files import record_connection
            from ..pf import save_connection

            if not args.replace:  # it may have changed while the model was loaded
                _refuse_replacing(args.connection)
            record_connection(args.workdir, args.connection, url)
            state = save_connection(args.connection, {"endpoint": url}, key)
            print_text(f"connection {args.connection!r} {state}; Ctrl-C stops")
            after_connection(args.connection, when="in another terminal")

    with own_endpoint_name(args.workdir, args.name), ExitStack() as stack:
        stack.callback(spinner.stop)
        serve_models(
            deployments,
            host=args.host,
            port=args.port,
            key=key,
            faults=rules,
            loading=loading,
            ready=ready,
        )
    return 0


def _describe(deployment: Deployment, runtime: str, *, share: bool) -> str:
    """Return what serves a deployment, and optionally its share of the traffic."""
    traffic = (
        f"deployment {deployment.name}, {deployment.weight} % of the traffic: " if share else ""
    )
    return f"{traffic}serving {deployment.model} with {runtime or 'its own scoring script'}"


def _refuse_replacing(connection: str) -> None:
    """Raise OpsError if a connection points to another machine."""
    from ..pf import refuse_replacing_connection

    refuse_replacing_connection(connection, "", "Give --replace, or another --connection.")


def _deployments(args: argparse.Namespace) -> list[Deployment]:
    """Return the deployments of `--deployment` or `--model`. Raises OpsError."""
    from ..endpoint import Deployment
    from ..errors import OpsError
    from ..models import resolve_folder

    if args.model and args.deployment:
        raise OpsError("--model and --deployment exclude each other", "Give one of them.")
    limits = {
        "request_timeout_ms": args.request_timeout_ms,
        "max_concurrent_requests_per_instance": args.max_concurrent_requests,
    }
    if not args.deployment:
        model = args.model or args.workdir / "model" / "model"
        return [Deployment("blue", resolve_folder(model), **limits)]
    return [
        Deployment(name, resolve_folder(model), weight, **limits)
        for name, model, weight in _named_models(args.deployment)
    ]


def _named_models(texts: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return name, model and traffic of each `NAME=MODEL[:PERCENT]`."""
    from ..errors import OpsError

    models = []
    for text in texts:
        match = re.fullmatch(r"([^=]+)=(.+?)(?::([0-9]{1,3}))?", text)
        if not match or not (match[3] or len(texts) == 1):
            fix = "Use NAME=MODEL:PERCENT, for example blue=models/a:90."
            raise OpsError(f"--deployment {text} has no name, model or share of the traffic", fix)
        models.append((match[1], match[2], int(match[3] or 100)))
    return models


def _key(*, connect: bool) -> str:
    """Return the key from the environment, or a new one.

    The key of an existing connection is never used: it may be that of another endpoint.
    """
    from ..endpoint import ENDPOINT_KEY_VARIABLE
    from ..errors import OpsError

    if key := os.environ.get(ENDPOINT_KEY_VARIABLE):
        return key
    if not connect:
        raise OpsError(f"{ENDPOINT_KEY_VARIABLE} is not set", "Set it, or omit --no-connect.")
    return secrets.token_urlsafe(32)
