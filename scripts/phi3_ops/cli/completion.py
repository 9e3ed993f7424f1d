"""`phi3 completion`, and the answers to a shell that completes a command line."""

from __future__ import annotations

import argparse
from typing import Any

from ..terminal import print_text

SHELLS = ("bash", "zsh", "fish", "powershell")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the script with which a shell completes the commands and options of phi3 when you press "
        'Tab. For bash, add this line to ~/.bashrc: eval "$(phi3 completion bash)".'
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print_text(shellcode(["phi3"], shell=args.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Write the possible next words for the shell, and exit.

    The interface is described on the page "argcomplete - Bash/zsh tab completion for argparse".

    Args:
        parser: parser of the command line that is being completed.
    """
    import argcomplete

    commands = (action for action in parser._actions if _has_subparsers(action))
    for subparser in (subparser for action in commands for subparser in _subparsers(action)):
        for argument in subparser._actions:
            if argument.dest in ("flow", "flows"):
                argument.completer = _flow_names  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _has_subparsers(action: Any) -> bool:
    return isinstance(action, argparse._SubParsersAction)


def _subparsers(action: Any) -> list[argparse.ArgumentParser]:
    return list(action.choices.values())


def _flow_names(**options: Any) -> list[str]:
    from .. import paths

    return sorted(file.parent.name for file in paths.flows_folder().glob("*/flow.dag.yaml"))
