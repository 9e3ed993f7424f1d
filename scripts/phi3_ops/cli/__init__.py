"""The `phi3` command: one module per subcommand, imported only when that subcommand runs."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import traceback
from collections.abc import Sequence

from ..terminal import print_text
from .startup import prepare_process, require_home, skip_final_collection

# Name -> help text. The module of that name has `arguments(parser)` and `run(args)`.
COMMANDS = {
    "quickstart": "the whole path on this machine: data, fine-tuning, endpoint, chat, evaluation",
    "doctor": "check what is missing, and how to fix it",
    "data": "prepare training and test data",
    "models": "list, fetch and remove the models of the cache",
    "finetune": "fine-tune a model",
    "endpoint": "serve a model on this machine as Azure ML would",
    "connect": "write the connection that the flows use",
    "serve": "serve a chat flow with a page that streams",
    "run": "run a flow over a data file, many lines at a time",
    "compare": "compare runs line by line, with confidence intervals and a gate for CI",
    "flow": "versions of the flows: lock, check, upload, promote",
    "quota": "check whether Azure provides the configured machines",
    "provision": "create the workspace, identity, cluster and roles on Azure",
    "deploy": "put a fine-tuned model behind an Azure ML endpoint without downtime",
    "status": "list what runs on Azure and what is paid for by the hour",
    "down": "delete what was created on Azure",
}
INTERRUPTED = 130  # exit code


def entry() -> int:
    """Run `main` as the console script `phi3`."""
    prepare_process()
    try:
        return main()
    except Exception:  # of a command with --verbose
        print_text(traceback.format_exc(), to_stderr=True)
        return 1
    finally:
        skip_final_collection()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: words of the command line without the program's name; None takes the process's own.

    Returns:
        The exit code: 0 done, 1 failed (one line on standard error says why), 2 wrong usage,
        130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in words if word in COMMANDS), None)
    parser = _parser(name)
    args = parser.parse_args(words)
    # A plain `kill` ends the command like Ctrl-C, through every `finally`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        require_home()
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        print_text("phi3: interrupted", to_stderr=True)
        return INTERRUPTED
    except Exception as error:
        if args.verbose:
            raise
        print_text(f"phi3 {args.command}: {_error_line(error)}", to_stderr=True)
        return 1


def _parser(name: str | None) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of the subcommand that runs."""
    parser = argparse.ArgumentParser(
        prog="phi3", description="Fine-tune your own Phi-3 and put it behind Prompt flow."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, help_text in COMMANDS.items():
        subparser = commands.add_parser(command, help=help_text, description=help_text)
        subparser.add_argument(
            "--verbose", action="store_true", help="show the traceback of an error"
        )
        if command == name:
            module = importlib.import_module(f"{__name__}.{command}")
            module.arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def _version() -> str:
    from importlib.metadata import version

    from ..installation import PACKAGE

    return f"phi3 {version(PACKAGE)}"


def _error_line(error: Exception) -> str:
    """Return an error as one line; an unexpected error also says how to see its traceback."""
    from ..errors import ExplainedError

    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ExplainedError):
        return text
    return f"{type(error).__name__}: {text} (--verbose shows where)"
