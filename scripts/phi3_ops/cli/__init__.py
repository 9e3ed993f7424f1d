"""The `phi3` command. One module a subcommand, imported only when it is the one asked for."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence

# Name -> what `phi3 --help` says of it. The module of that name has `arguments(parser)` and `run(args)`.
COMMANDS = {
    "quickstart": "the whole path on this machine: data, fine-tuning, endpoint, chat, evaluation",
    "doctor": "say what is missing or unfit, for each way of use, and how to mend it",
    "data": "prepare training and test data",
    "finetune": "fine-tune a model",
    "endpoint": "serve a model on this machine as Azure ML would",
    "connect": "write the connection that the flows use",
    "serve": "serve a chat flow with a page that streams",
    "run": "run a flow over a data file, many lines at once",
    "compare": "compare runs line by line, with intervals and a gate for CI",
    "flow": "versions of the flows: lock, check, upload, promote",
    "quota": "see whether Azure gives the machines that are configured",
    "provision": "make the workspace, identity, cluster and roles on Azure",
    "deploy": "put a fine-tuned model behind an Azure ML endpoint, without an outage",
    "status": "list what runs on Azure and what is paid for by the hour",
    "down": "delete what was made on Azure",
}
INTERRUPTED = 130
AGAIN = 0.05  # seconds until a Ctrl-C that got lost is sent once more


def entry() -> int:
    """`phi3`, as a process of its own: `main`, with the collector kept from the libraries' many objects.

    Half of a short command's time would go into looking through what was just imported, and once more
    when it ends.
    """
    sys.unraisablehook = _unraisable
    gc.set_threshold(100_000, 50, 100)
    try:
        return main()
    finally:
        gc.freeze()


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised while it runs a `__del__`, a Ctrl-C too: send that again."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    again = threading.Timer(AGAIN, os.kill, [os.getpid(), signal.SIGINT])
    again.daemon = True
    again.start()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        The exit code: 0 done, 1 failed (one line on standard error says why), 2 wrong usage,
        130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in words if word in COMMANDS), None)
    parser = _parser(name)
    args = parser.parse_args(words)
    # A plain `kill` ends like Ctrl-C, through every `finally`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        print("phi3: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if args.verbose:
            raise
        print(f"phi3 {args.command}: {_line(error)}", file=sys.stderr)
        return 1


def _parser(name: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="phi3", description="Fine-tune your own Phi-3 and put it behind Prompt flow."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, help_text in COMMANDS.items():
        sub = commands.add_parser(command, help=help_text, description=help_text)
        sub.add_argument("--verbose", action="store_true", help="show the traceback of an error")
        if command == name:
            module = importlib.import_module(f"{__name__}.{command}")
            module.arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def _version() -> str:
    from importlib.metadata import version

    return f"phi3 {version('phi3-promptflow')}"


def _line(error: Exception) -> str:
    """One line for whatever went wrong; what nobody foresaw says how to see more."""
    from ..errors import ExplainedError

    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ExplainedError):
        return text
    return f"{type(error).__name__}: {text} (--verbose shows where)"
