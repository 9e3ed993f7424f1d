"""`phi3 serve`."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from ._common import port

TOKEN_VARIABLE = "PHI3_SERVE_TOKEN"  # noqa: S105 - its name


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve a chat flow with a page that streams. /score, /health and /swagger.json are those of "
        "`pf flow serve`."
    )
    parser.add_argument(
        "--flow", type=Path, default=Path("chat"), help="folder or name (default: %(default)s)"
    )
    parser.add_argument(
        "--connection",
        metavar="NAME",
        default="phi3",
        help="connection to ask (default: %(default)s)",
    )
    parser.add_argument("--against", metavar="NAME", help="a second one, asked side by side")
    parser.add_argument(
        "--port",
        type=port,
        default=8080,
        help="port to listen on, 0 for a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help=f"address to listen on (default: %(default)s); any but loopback needs {TOKEN_VARIABLE} "
        "in the environment, the password that the page then asks for",
    )
    parser.add_argument(
        "--trace",
        metavar="DESTINATION",
        help="send OpenTelemetry spans: otlp=http://HOST:4318, or appinsights with "
        "APPLICATIONINSIGHTS_CONNECTION_STRING in the environment (default: nowhere)",
    )


def run(args: argparse.Namespace) -> int:
    from ..errors import OpsError
    from ..flows import FlowDefinition
    from ..network import base_url, bind_socket, is_loopback

    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not is_loopback(args.host):
        fix = f"Put a password into {TOKEN_VARIABLE}."
        raise OpsError(f"{args.host} can be reached from outside: not without a password", fix)
    flow = FlowDefinition.read(args.flow)
    names = [args.connection, *([args.against] if args.against else [])]

    from ..chat import counting_tokens, make_chat_app, sending_traces
    from ..chat import serve_app as run_server

    def ready() -> None:
        asked = " and ".join(names)
        print(f"{flow.folder} answers at {base_url(args.host, sock)}/, from {asked}")
        print("Ctrl-C stops", flush=True)

    with bind_socket(args.host, args.port) as sock, counting_tokens(), sending_traces(args.trace):
        folder = tempfile.TemporaryDirectory(prefix="phi3-serve-")
        with folder:
            app = make_chat_app(flow, names, Path(folder.name), token=token)
            run_server(app, sock, ready, abandon=folder.cleanup)
    return 0
