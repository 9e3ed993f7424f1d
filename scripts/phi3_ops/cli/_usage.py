"""The parser of the `phi3` command: help grouped by task, and suggestions for typing errors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from ..names import did_you_mean

# How argparse words a choice that does not exist.
_WRONG_CHOICE = re.compile(r"argument (.+): invalid choice: '([^']*)' \(choose from (.+)\)")
EXAMPLE = "example:"
_WORD = re.compile(r"[\w-]+")


class _Formatter(argparse.HelpFormatter):
    """A formatter that does not wrap examples, so that they can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLE) else super()._fill_text(text, width, indent)


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors name the nearest word that exists; it does not wrap examples."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)

    def error(self, message: str) -> NoReturn:
        """Print the usage and an error, and exit with 2."""
        super().error(_with_suggestion(message))

    def refuse_unknown(self, words: list[str]) -> NoReturn:
        """Exit with 2 because of words that this parser does not know."""
        options = [name for action in self._actions for name in action.option_strings]
        message = f"unrecognized arguments: {' '.join(words)}"
        is_option = words[0].startswith("-")
        self.error(
            message + (did_you_mean(words[0].partition("=")[0], options) if is_option else "")
        )


def grouped_commands(groups: Mapping[str, Mapping[str, str]]) -> str:
    """Return the list of commands for the end of the help.

    Args:
        groups: task -> command -> its help text.
    """
    width = max(len(name) for commands in groups.values() for name in commands)
    sections = []
    for task, commands in groups.items():
        lines = [f"  {name:{width}}  {text}" for name, text in commands.items()]
        sections.append("\n".join([f"{task}:", *lines]))
    return "\n\n".join(sections)


def _with_suggestion(message: str) -> str:
    match = _WRONG_CHOICE.fullmatch(message)
    if not match:
        return message
    argument, word, choices = match.groups()
    known = _WORD.findall(choices)
    name = argument if argument.startswith("-") else argument.lower()
    suggestion = did_you_mean(word, known)
    return f"{word!r} is not a valid {name}{suggestion or '; use ' + ', '.join(known)}"
