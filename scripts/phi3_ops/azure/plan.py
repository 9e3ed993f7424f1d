"""A plan of steps that is printed or applied: the same object for both, so that they cannot differ.

A step checks whether its result exists, and creates it if it does not. So a second run changes nothing,
and the next run completes a run that was interrupted at any step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from ..errors import OpsError
from ..progress import waiting
from ..terminal import agrees, one_line
from .faults import named_errors

# Past forms of verbs; all others take a -d.
PAST_FORMS = {"submit": "submitted", "assign": "assigned", "register": "registered"}


@dataclass(frozen=True)
class Step:
    """One change, and the check whether it is needed.

    Attributes:
        what: text for the result, as in "cluster gpu-a100 (Standard_NC24ads_A100_v4, 0 to 1 nodes)".
        exists: returns whether the result exists and is as it should be. It only reads.
        apply: creates the result; may take long. Repeating it must be harmless.
        verb: verb for `apply`.
        state: word that is printed if nothing has to be done.
        usual: how long `apply` usually takes on Azure, for example `3 to 10 min`; empty if it is quick.
    """

    what: str
    exists: Callable[[], bool]
    apply: Callable[[], object]
    verb: str = "create"
    state: str = "exists"
    usual: str = ""


@dataclass
class Plan:
    """Steps in the order in which they depend on each other."""

    title: str
    steps: list[Step] = field(default_factory=list)

    def add(self, steps: Iterable[Step]) -> None:
        """Append steps."""
        self.steps.extend(steps)

    def run(self, console: Console, *, dry_run: bool = False) -> int:
        """Print what would change, or change it.

        Args:
            console: shows the progress.
            dry_run: read and print only.

        Returns:
            The number of steps that changed something, or would change it.

        Raises:
            OpsError: a step failed. Earlier steps stay applied, and the next run continues after them.
        """
        changed = 0
        for step in self.steps:
            with named_errors(f"looking for {step.what}"):
                exists = step.exists()
            if exists:
                line = Text.assemble("  ", (f"{step.state:8}", "dim"), f" {one_line(step.what)}")
            elif dry_run:
                line = Text(f"  would {step.verb} {one_line(step.what)}")
            else:
                line = self._apply(step, console)
            console.print(line, highlight=False, soft_wrap=True)
            changed += not exists
        summary = Text(f"{self.title}: {self._summary(changed, dry_run)}")
        console.print(summary, highlight=False, soft_wrap=True)
        return changed

    def run_when_confirmed(
        self, console: Console, question: str, *, dry_run: bool = False, yes: bool = False
    ) -> int:
        """Print what would change, ask for confirmation, and change it.

        Args:
            console: shows the progress.
            question: question to ask before anything changes.
            dry_run: read and print only.
            yes: do not ask.

        Returns:
            The number of steps that changed something, or would change it.

        Raises:
            OpsError: a step failed, the answer was no, or standard input is not a terminal.
        """
        if dry_run or not yes:
            pending = self.run(console, dry_run=True)
            if dry_run or not pending:
                return pending
        confirm(question, yes=yes)
        return self.run(console)

    @staticmethod
    def _apply(step: Step, console: Console) -> Text:
        start = time.monotonic()
        with (
            waiting(console, f"{step.verb} {one_line(step.what)}", step.usual),
            named_errors(f"{step.verb} {step.what}"),
        ):
            step.apply()
        past = PAST_FORMS.get(step.verb, f"{step.verb}d")
        return Text(f"  {past} {one_line(step.what)} ({time.monotonic() - start:.0f} s)")

    @staticmethod
    def _summary(changed: int, dry_run: bool) -> str:
        if not changed:
            return "nothing to change"
        steps = "1 step" if changed == 1 else f"{changed} steps"
        return f"{steps} would be taken; nothing was changed" if dry_run else f"done, {steps}"


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation on the terminal; with `yes`, ask nothing.

    Raises:
        OpsError: the answer was no, or standard input is not a terminal.
    """
    if yes:
        return
    if not agrees(question):
        raise OpsError("not confirmed", "Nothing was changed.")
