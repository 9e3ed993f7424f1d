"""A plan of steps that is printed or applied: the same object for both, so that they cannot differ.

A step looks whether its result is there, and makes it when it is not. So a second run changes nothing,
and a run that was interrupted at any step is completed by the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape

from ..errors import OpsError
from .cloud import named_errors

# What a verb is called when it is done; others take a -d.
PAST = {"submit": "submitted", "assign": "assigned"}


@dataclass(frozen=True)
class Step:
    """One thing to bring about.

    Attributes:
        what: what it makes, as in "compute gpu-a100 (Standard_NC24ads_A100_v4, 0 to 1 nodes)".
        exists: whether it is there and as it should be. Reads only.
        apply: brings it about; may take long. Repeating it must be harmless.
        verb: what `apply` does to it.
        state: what it is called when there is nothing to do about it.
    """

    what: str
    exists: Callable[[], bool]
    apply: Callable[[], object]
    verb: str = "create"
    state: str = "there"


@dataclass
class Plan:
    """Steps in the order in which they depend on each other."""

    title: str
    steps: list[Step] = field(default_factory=list)

    def add(self, steps: Iterable[Step]) -> None:
        """Put further steps behind those that are there."""
        self.steps.extend(steps)

    def run(self, console: Console, *, dry_run: bool = False) -> int:
        """Print what would change, or change it.

        Args:
            console: where progress is shown.
            dry_run: only read and print.

        Returns:
            How many steps changed something, or would.

        Raises:
            OpsError: a step failed; those before it stay, and the next run goes on from there.
        """
        changed = 0
        for step in self.steps:
            what = escape(step.what)
            with named_errors(f"looking for {step.what}"):
                done = step.exists()
            if done:
                line = f"  [dim]{step.state:8}[/dim] {what}"
            elif dry_run:
                line = f"  would {step.verb} {what}"
            else:
                line = self._apply(step, console)
            console.print(line, highlight=False, soft_wrap=True)
            changed += not done
        ending = escape(f"{self.title}: {self._ending(changed, dry_run)}")
        console.print(ending, highlight=False, soft_wrap=True)
        return changed

    def run_when_confirmed(
        self, console: Console, question: str, *, dry_run: bool = False, yes: bool = False
    ) -> int:
        """Print what would change, ask, and change it; raises what `run` and `confirm` raise.

        Args:
            console: where progress is shown.
            question: what to ask before anything changes.
            dry_run: only read and print.
            yes: do not ask.

        Returns:
            How many steps changed something, or would.
        """
        if dry_run or not yes:
            pending = self.run(console, dry_run=True)
            if dry_run or not pending:
                return pending
        confirm(question, yes=yes)
        return self.run(console)

    @staticmethod
    def _apply(step: Step, console: Console) -> str:
        what, start = escape(step.what), time.monotonic()
        with console.status(f"{step.verb} {what}"), named_errors(f"{step.verb} {step.what}"):
            step.apply()
        past = PAST.get(step.verb, f"{step.verb}d")
        return f"  {past} {what} ({time.monotonic() - start:.0f} s)"

    @staticmethod
    def _ending(changed: int, dry_run: bool) -> str:
        if not changed:
            return "nothing to change"
        steps = "1 step" if changed == 1 else f"{changed} steps"
        return f"{steps} would be taken; nothing was changed" if dry_run else f"done, {steps}"


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is lost.

    Raises:
        OpsError: the answer is no, or there is nobody to ask.
    """
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise OpsError("nobody is there to confirm", "Give --yes.")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise OpsError("not confirmed", "Nothing was changed.")
