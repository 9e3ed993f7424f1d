"""Looks at what is needed, one check after the other: each within its time, none ending the others.

What is looked at stands in `doctor_checks.CHECKS`. Imports nothing that is not in Python itself: what it
looks for may be missing.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import quote

from ..errors import ExplainedError

OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"
HIDDEN = "***"
# Environment variables whose values are taken for secrets, by their names' ends.
_SECRET_NAME = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|PASSPHRASE|SAS)$", re.IGNORECASE)
# What is shorter hides nothing, and would be hidden in every second word.
_SHORTEST = 4


@dataclass(frozen=True)
class Finding:
    """What a check saw.

    Attributes:
        status: `OK`, `WARN` (works, but …), `FAIL` or `SKIP`.
        what: what is there, or what is wrong with it.
        fix: what to do; the check's own when empty.
    """

    status: str
    what: str
    fix: str = ""


class Situation(Protocol):
    """What the checks look at; `secrets` grows as they are met."""

    secrets: set[str]


@dataclass(frozen=True)
class Check:
    """One thing that may be missing or unfit.

    Attributes:
        name: what it is called in the output.
        ways: the ways of use that need it.
        look: looks. It may raise: OpsError and Phi3Error tell what is wrong, anything else is named.
        fix: what to do when `look` does not say.
        needs: checks that must not have failed, or this one is skipped.
        limit_s: seconds after which the check has failed.
    """

    name: str
    ways: tuple[str, ...]
    look: Callable[[Any], Finding]
    fix: str
    needs: tuple[str, ...] = ()
    limit_s: float = 10.0


@dataclass(frozen=True)
class CheckResult:
    """A check's outcome, free of secrets."""

    name: str
    ways: tuple[str, ...]
    status: str
    what: str
    fix: str = ""


def run_checks(
    checks: Iterable[Check],
    situation: Situation,
    ways: Collection[str],
    started: Callable[[str], None] = lambda name: None,
) -> list[CheckResult]:
    """Run the checks of some ways of use, in order.

    Args:
        checks: those that others need in front of them.
        situation: given to each.
        ways: names of ways of use.
        started: called with a check's name before it is run.
    """
    results: list[CheckResult] = []
    for check in checks:
        own = tuple(way for way in check.ways if way in ways)
        if not own:
            continue
        started(check.name)
        bad = {result.name for result in results if result.status in (FAIL, SKIP)}
        lacking = [name for name in check.needs if name in bad]
        if lacking:
            finding = Finding(SKIP, f"not looked at: {', '.join(lacking)} first")
        else:
            finding = _within(check, situation)
        if finding.status in (FAIL, WARN) and not finding.fix:
            finding = replace(finding, fix=check.fix)
        secrets = situation.secrets | known_secrets(os.environ.items())
        what, fix = (cut_secrets(text, secrets) for text in (finding.what, finding.fix))
        results.append(CheckResult(check.name, own, finding.status, what, fix))
    return results


def _within(check: Check, situation: Situation) -> Finding:
    """A check's finding, or that it took too long: its thread is then left alone, and ends with us."""
    found: list[Finding] = []

    def look() -> None:
        try:
            found.append(check.look(situation))
        except Exception as error:  # whatever a broken installation raises
            found.append(Finding(FAIL, *_described(error)))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(check.limit_s)
    return found[0] if found else Finding(FAIL, f"no answer within {check.limit_s:g} s")


def _described(error: Exception) -> tuple[str, str]:
    """Return what is wrong and, where the error says so, what to do about it."""
    if isinstance(error, ExplainedError):
        return error.what, error.fix
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is not installed", ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}", ""


def usable_ways(results: Sequence[CheckResult], way: str) -> list[str]:
    """The names of what failed for a way of use; nothing where it is ready."""
    return [result.name for result in results if way in result.ways and result.status == FAIL]


# -- secrets ---------------------------------------------------------------------------------------


def known_secrets(variables: Iterable[tuple[str, str]]) -> set[str]:
    """The values of those variables whose names say that they are secret."""
    return {value for name, value in variables if _SECRET_NAME.search(name)}


def cut_secrets(text: str, secrets: Iterable[str]) -> str:
    """A text in which secrets are hidden: plain, as in URLs, JSON or base64, or cut off at the end."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) < _SHORTEST:
            continue
        encoded = base64.b64encode(secret.encode()).decode()
        for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], encoded):
            text = text.replace(form, HIDDEN)
            # An endpoint's words are cut to a length, perhaps within the secret.
            for length in range(len(form) - 1, _SHORTEST - 1, -1):
                if text.endswith(form[:length]):
                    text = text[:-length] + HIDDEN
                    break
    return text
