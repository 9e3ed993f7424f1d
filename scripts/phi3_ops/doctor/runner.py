"""Run checks one after the other. Each has a time limit, and a failing check does not end the others.

The checks are in `checks.CHECKS`. This module imports only the standard library, because the packages
that the checks look for may be missing.
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
# Environment variables whose names end like this contain secrets.
_SECRET_NAME = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|PASSPHRASE|SAS)$", re.IGNORECASE)
# Shorter values are not replaced, because they occur in ordinary words.
_SHORTEST_SECRET = 4


@dataclass(frozen=True)
class Finding:
    """The result of a check function.

    Attributes:
        status: `OK`, `WARN` (it works, but …), `FAIL` or `SKIP`.
        what: what the check found, or what is wrong.
        fix: what to do; if empty, the `fix` of the check applies.
    """

    status: str
    what: str
    fix: str = ""


class Context(Protocol):
    """What the runner needs of the checks' context: the secrets that the checks have read so far."""

    secrets: set[str]


@dataclass(frozen=True)
class Check:
    """A check of one thing that may be missing or wrong.

    Attributes:
        name: name in the output.
        ways: the ways of use that need the thing.
        run: function that checks it. If it raises, the check fails and the output explains the error.
        fix: what to do if `run` does not tell it.
        needs: names of checks; if one of them fails, this check is skipped.
        limit_s: time limit in seconds; a check that takes longer fails.
    """

    name: str
    ways: tuple[str, ...]
    run: Callable[[Any], Finding]
    fix: str
    needs: tuple[str, ...] = ()
    limit_s: float = 10.0


@dataclass(frozen=True)
class CheckResult:
    """The result of a check, without secrets.

    Attributes:
        name: name of the check.
        ways: the requested ways of use that need the check.
        status, what, fix: the finding.
    """

    name: str
    ways: tuple[str, ...]
    status: str
    what: str
    fix: str = ""


def run_checks(
    checks: Iterable[Check],
    context: Context,
    ways: Collection[str],
    started: Callable[[str], None] = lambda name: None,
) -> list[CheckResult]:
    """Run the checks of some ways of use, in order.

    Args:
        checks: the checks; a check comes after the checks that it needs.
        context: argument of every check function.
        ways: names of ways of use.
        started: function that is called with the name of a check before the check runs.
    """
    results: list[CheckResult] = []
    for check in checks:
        requested_ways = tuple(way for way in check.ways if way in ways)
        if not requested_ways:
            continue
        started(check.name)
        not_passed = {result.name for result in results if result.status in (FAIL, SKIP)}
        unmet_needs = [name for name in check.needs if name in not_passed]
        if unmet_needs:
            finding = Finding(SKIP, f"not checked: fix {', '.join(unmet_needs)} first")
        else:
            finding = _run_with_limit(check, context)
        if finding.status in (FAIL, WARN) and not finding.fix:
            finding = replace(finding, fix=check.fix)
        finding = replace(finding, what=finding.what.removeprefix(f"{check.name}: "))
        secrets = context.secrets | known_secrets(os.environ.items())
        what, fix = (cut_secrets(text, secrets) for text in (finding.what, finding.fix))
        results.append(CheckResult(check.name, requested_ways, finding.status, what, fix))
    return results


def _run_with_limit(check: Check, context: Context) -> Finding:
    """Run a check in a thread. After the time limit, the thread is left alone until the process ends."""
    findings: list[Finding] = []

    def run() -> None:
        try:
            findings.append(check.run(context))
        except Exception as error:  # a broken installation can raise anything
            findings.append(Finding(FAIL, *_explain(error)))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(check.limit_s)
    return findings[0] if findings else Finding(FAIL, f"no answer within {check.limit_s:g} s")


def _explain(error: Exception) -> tuple[str, str]:
    """Return what is wrong, and what to do about it if the error tells it."""
    if isinstance(error, ExplainedError):
        return error.what, error.fix
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is not installed", ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}", ""


def failed_checks(results: Sequence[CheckResult], way: str) -> list[str]:
    """Return the names of the failed checks of a way of use; an empty list if the way is ready."""
    return [result.name for result in results if way in result.ways and result.status == FAIL]


# -- secrets ---------------------------------------------------------------------------------------


def known_secrets(variables: Iterable[tuple[str, str]]) -> set[str]:
    """Return the values of the variables whose names mark them as secrets.

    Args:
        variables: name and value of environment variables.
    """
    return {value for name, value in variables if _SECRET_NAME.search(name)}


def cut_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return a text in which secrets are replaced with `***`.

    They are also replaced if they are encoded as in URLs, JSON or base64, or cut off at the end.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) < _SHORTEST_SECRET:
            continue
        encoded = base64.b64encode(secret.encode()).decode()
        for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], encoded):
            text = text.replace(form, HIDDEN)
            # Texts of an endpoint are cut to a maximum length, possibly within a secret.
            for length in range(len(form) - 1, _SHORTEST_SECRET - 1, -1):
                if text.endswith(form[:length]):
                    text = text[:-length] + HIDDEN
                    break
    return text
