"""`phi3 serve`."""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..names import name_argument
from ..terminal import print_text
from ._common import add_engine, port

if TYPE_CHECKING:
    from ..chat import FeedbackOptions

TOKEN_VARIABLE = "PHI3_SERVE_TOKEN"  # noqa: S105 - the name of the variable


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve a flow. /score, /health and /swagger.json are as under `pf flow serve`. A chat flow has a "
        "page that streams."
    )
    _add_flow_options(parser)
    _add_page_options(parser)
    add_engine(parser)
    _add_server_options(parser)


def _add_flow_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--flow", type=Path, default=Path("chat"), help="folder or name (default: %(default)s)"
    )
    parser.add_argument(
        "--connection",
        type=name_argument,
        metavar="NAME",
        default="phi3",
        help="connection that the flow uses (default: %(default)s)",
    )
    parser.add_argument(
        "--against",
        type=name_argument,
        metavar="NAME",
        help="second connection, to compare the answers side by side; one that ends in -base is labelled "
        "as not fine-tuned",
    )


def _add_page_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help="JSONL file with `question`, whose first questions the page suggests (default: "
        "samples.jsonl of the flow)",
    )
    parser.add_argument(
        "--feedback",
        action="store_true",
        help="store the feedback that users give on answers, with the question, the answer and the "
        "earlier messages; the page says so (default: nothing is stored)",
    )
    parser.add_argument(
        "--feedback-store",
        type=Path,
        metavar="FILE",
        help="SQLite database in which --feedback stores it (default: feedback.sqlite next to the runs)",
    )


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        type=port,
        default=8080,
        help="port to listen on, 0 for a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s); any other than loopback needs a password in "
        f"the environment variable {TOKEN_VARIABLE}, which the page then asks for",
    )
    parser.add_argument(
        "--name",
        type=name_argument,
        help="name by which `phi3 endpoint --stop` finds this server in --workdir (default: none; "
        "Ctrl-C stops the server)",
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=paths.WORKDIR,
        metavar="DIR",
        help="folder for the note of a server with a --name (default: %(default)s)",
    )
    parser.add_argument(
        "--trace",
        metavar="DESTINATION",
        help="destination of OpenTelemetry spans: otlp=http://HOST:4318, or appinsights with "
        "APPLICATIONINSIGHTS_CONNECTION_STRING in the environment (default: none are sent)",
    )


def _warn_if_stopped(connection: str) -> None:
    from ..pf import stopped_endpoint

    if address := stopped_endpoint(connection):
        print_text(
            f"warning: the endpoint of the connection {connection!r}, {address}, is not running; start "
            "one with `phi3 endpoint --model DIR`, which also updates the connection",
            to_stderr=True,
        )


def _feedback_options(store_file: Path | None, token: str | None) -> FeedbackOptions:
    """Return where feedback is stored, and what is cut out of it.

    Without a password, only this machine can open the page: its user is the one who gives feedback.
    """
    import getpass

    from ..chat import FeedbackOptions
    from ..feedback import default_store

    user = None
    if token is None:
        with suppress(OSError, KeyError, ImportError):  # a container may have no name for its user
            user = getpass.getuser()
    file = (store_file or default_store()).expanduser().absolute()
    return FeedbackOptions(file, user, [token] if token else [])


def run(args: argparse.Namespace) -> int:
    from ..endpoint import own_endpoint_name, register_endpoint
    from ..errors import OpsError
    from ..flows import FlowDefinition
    from ..network import base_url, bind_socket, is_loopback

    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not is_loopback(args.host):
        what = f"refusing to listen on {args.host} without a password: other machines can reach it"
        raise OpsError(what, f"Set {TOKEN_VARIABLE}.")
    if args.feedback_store and not args.feedback:
        raise OpsError("--feedback-store has no effect without --feedback", "Add --feedback.")
    if args.engine == "promptflow":
        from ..pf import require_promptflow

        require_promptflow("--engine promptflow")
    flow = FlowDefinition.read(args.flow)
    connections = [args.connection, *([args.against] if args.against else [])]
    if not flow.uses_connection:
        if args.against:
            raise OpsError(f"no node of {flow.folder} uses a connection", "Omit --against.")
        connections = []

    feedback = _feedback_options(args.feedback_store, token) if args.feedback else None
    from ..chat import counting_tokens, is_chat_flow, make_chat_app, sending_traces, serve_app

    def ready() -> None:
        noun = "connections" if len(connections) > 1 else "connection"
        names = f" with the {noun} {' and '.join(connections)}" if connections else ""
        url = base_url(args.host, sock)
        if args.name:
            register_endpoint(args.workdir, args.name, f"{url}/", str(flow.folder))
        print_text(f"serving {flow.folder} at {url}/{names}")
        if feedback:
            print_text(f"feedback is stored in {feedback.file}")
            if not is_chat_flow(flow):
                print_text(
                    f"the page has no feedback buttons, because {flow.folder.name} is not a chat; "
                    f"programs can send feedback to {url}/feedback"
                )
        for name in connections:
            _warn_if_stopped(name)
        print_text("Ctrl-C stops")

    named = own_endpoint_name(args.workdir, args.name) if args.name else nullcontext()
    with (
        named,
        bind_socket(args.host, args.port) as sock,
        counting_tokens(),
        sending_traces(args.trace),
    ):
        folder = tempfile.TemporaryDirectory(prefix="phi3-serve-")
        with folder:
            app = make_chat_app(
                flow,
                connections,
                Path(folder.name),
                token=token,
                engine=args.engine,
                questions=args.questions,
                feedback=feedback,
            )
            serve_app(app, sock, ready, abandon=folder.cleanup)
    return 0
