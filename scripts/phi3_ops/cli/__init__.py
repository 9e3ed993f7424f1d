"""The `phi3` command: one module per subcommand, imported only when that subcommand runs."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence

from ..terminal import print_text
from ._usage import CommandParser, grouped_commands
from .startup import prepare_process, require_home, skip_final_collection

# Task -> command -> help text. The module of a command's name has `arguments(parser)` and `run(args)`.
GROUPS = {
    "start here": {
        "quickstart": "the whole path on this machine: data, fine-tuning, endpoint, chat, evaluation",
        "init": "lay out a project of your own: flows, data, connection, phi3.yaml, pipeline",
        "doctor": "what works on this machine, and what each further use needs",
    },
    "make a model": {
        "data": "prepare training and test data",
        "finetune": "fine-tune a model, here or on Azure",
        "export": "write a model for llama.cpp, Ollama, LM Studio, Foundry Local or ONNX Runtime",
        "models": "list, fetch and remove the models of the cache",
    },
    "use it": {
        "endpoint": "serve a model on this machine as Azure ML would",
        "connect": "write the connection that the flows use",
        "connections": "list the connections without their keys, and delete one",
        "serve": "serve a chat flow with a page that streams",
        "feedback": "list, export and delete the feedback that users gave in `phi3 serve`",
    },
    "measure it": {
        "run": "run a flow over a data file, many lines at a time",
        "runs": "list, show and delete runs",
        "review": "judge the answers of runs on a page, and compare a judge with it",
        "compare": "compare runs line by line, with confidence intervals and a gate for CI",
        "sweep": "try prompts, connections and parameters, and see which are best",
    },
    "flows": {
        "flow": "check, lock, build, export, upload and promote flows",
    },
    "on Azure": {
        "quota": "check whether Azure provides the configured machines",
        "provision": "create the workspace, identity, cluster and roles on Azure",
        "deploy": "put a fine-tuned model behind an Azure ML endpoint without downtime",
        "status": "list what runs on Azure and what is paid for by the hour",
        "down": "delete what was created on Azure",
    },
    "this command": {
        "completion": "print the script with which a shell completes commands and options",
    },
}
COMMANDS = {name: text for commands in GROUPS.values() for name, text in commands.items()}
# Words that people try as a command -> the command that does it.
MEANT = {
    **{name: f"flow {name}" for name in ("build", "check", "lock", "promote", "pull", "upload")},
    "chat": "serve",
    "delete": "down",
    "evaluate": "run --evaluate",
    "help": "--help",
    "stop": "endpoint --stop",
    "train": "finetune",
    "version": "--version",
}
LISTING = ("connections", "models", "runs")  # commands that list
_DISK_PROBLEMS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is exceeded: free some space",
    errno.EROFS: "the disk is read-only: choose another folder",
}
INTERRUPTED = 130  # exit code


def entry() -> int:
    """Run `main` as the console script `phi3`, or complete a command line for the shell."""
    prepare_process()
    try:
        if "_ARGCOMPLETE" in os.environ:  # set by the script of `phi3 completion`
            _complete(os.environ.get("COMP_LINE", ""))
        return main()
    except Exception:  # of a command with --verbose
        print_text(traceback.format_exc(), to_stderr=True)
        return 1
    finally:
        skip_final_collection()


def _complete(line: str) -> None:
    """Write the words that can complete a command line, and exit."""
    from .completion import complete

    complete(_parser(next((word for word in line.split()[1:] if word in COMMANDS), None)))


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
    if not words:
        parser.print_help()
        return 0
    if name in LISTING and words[words.index(name) + 1 :][:1] == ["list"]:
        words.remove("list")  # `phi3 runs list` is what `phi3 runs` does
    if words[0] in MEANT:
        parser.error(f"{words[0]!r} is not a command; did you mean phi3 {MEANT[words[0]]}?")
    args, unknown = parser.parse_known_args(words)
    if unknown:
        args.parser.refuse_unknown(unknown)
    # A plain `kill` ends the command like Ctrl-C, through every `finally`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        require_home()
        return int(args.run(args) or 0)
    except KeyboardInterrupt as error:
        print_text(f"phi3: {str(error) or 'interrupted'}", to_stderr=True)
        return INTERRUPTED
    except Exception as error:
        if args.verbose:
            raise
        print_text(f"phi3 {args.command}: {_error_line(error)}", to_stderr=True)
        return 1


def _parser(name: str | None) -> CommandParser:
    """Return the parser, with the arguments of the subcommand that runs."""
    parser = CommandParser(
        prog="phi3",
        usage="phi3 [--help] [--version] COMMAND …",
        description="Fine-tune your own Phi, prove that it is better, and serve it here or on Azure.",
        epilog=f"{grouped_commands(GROUPS)}\n\nphi3 COMMAND --help describes a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(
        prog="phi3", dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS
    )
    for command, help_text in COMMANDS.items():
        subparser = commands.add_parser(command, description=help_text)
        subparser.set_defaults(parser=subparser)
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

    if isinstance(error, ModuleNotFoundError) and error.name:
        from ..installation import extra_of_module, install_command

        if extra := extra_of_module(error.name):
            return f"the module {error.name} is not installed. Run {install_command(extra)}"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ExplainedError):
        return text
    if problem := _disk_problem(error):
        return problem
    return f"{type(error).__name__}: {text} (--verbose shows where)"


def _disk_problem(error: BaseException) -> str | None:
    """Return one line about a disk that is full or cannot be written, or None for another error."""
    chain = [error, error.__cause__, error.__context__]
    number = next((each.errno for each in chain if isinstance(each, OSError) and each.errno), None)
    if isinstance(error, shutil.Error):  # a list of texts, of a copied folder
        number = next((code for code in _DISK_PROBLEMS if os.strerror(code) in str(error)), None)
    elif "disk is full" in str(error):  # of SQLite
        number = errno.ENOSPC
    if number is None or number not in _DISK_PROBLEMS:
        return None
    file = getattr(error, "filename", None)
    location = f" ({file})" if isinstance(file, (str, os.PathLike)) else ""
    return f"{_DISK_PROBLEMS[number]}, and run the same command again{location}"
