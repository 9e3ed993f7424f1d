"""Check that the packages of an extra are installed in compatible versions, without importing them."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from ..installation import PACKAGE, install_command
from .runner import FAIL, OK, WARN, Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# The consequence of a missing or wrong version, if the requirement alone does not tell it.
REASONS = {
    "azure-ai-ml": "from 1.33 on `import promptflow.azure` fails",
    "six": "azure-ai-ml imports it without requiring it",
    "promptflow-core": "only 1.18 is tested",
    "uvicorn": "`phi3 serve` and `pf flow serve --engine fastapi` need it",
    "mlflow-skinny": "3.18.0 cannot be installed",
}


@dataclass(frozen=True)
class KnownIssue:
    """Versions of a package that pip accepts, although something fails with them.

    Attributes:
        package: name of the package.
        versions: version specifier of the versions with the issue.
        consequence: what fails.
    """

    package: str
    versions: str
    consequence: str


KNOWN_ISSUES = (
    KnownIssue("filelock", ">=3.30", "`pf flow test --ui` fails"),
    KnownIssue("setuptools", ">=82", "`pf tool validate` fails, because it imports pkg_resources"),
    KnownIssue(
        "promptflow-devkit",
        ">=1.19",
        "`phi3 run` is tested with 1.18 only and may not slow down on 429",
    ),
)


@dataclass(frozen=True)
class Problem:
    """A package that is missing or has a wrong version.

    Attributes:
        package: name of the package.
        description: the problem, in words.
        direct: whether phi3-promptflow itself requires the package.
        missing: whether the package is not installed.
    """

    package: str
    description: str
    direct: bool
    missing: bool


def check_packages(extra: str, only: Collection[str] = ()) -> Finding:
    """Check the packages of an extra, and the packages that these require.

    Args:
        extra: an extra of phi3-promptflow.
        only: names of packages; if given, the other packages of the extra are not checked.
    """
    install = install_command(extra)
    try:
        problems, checked = _find_problems(extra, tuple(only))
    except ModuleNotFoundError as error:  # `packaging`, which comes with [local]
        what = f"the package {str(error.name).partition('.')[0]} is not installed"
        return Finding(FAIL, what, install_command("local"))
    if problems:
        severe = any(problem.direct or problem.missing for problem in problems)
        what = "; ".join(problem.description for problem in problems)
        return Finding(FAIL if severe else WARN, what, install)
    issues = [issue for issue in KNOWN_ISSUES if _has_issue(issue)] if extra == "promptflow" else []
    if issues:
        what = "; ".join(
            f"{issue.package} {_version(issue.package)}: {issue.consequence}" for issue in issues
        )
        fixes = " ".join(f"'{i.package}{i.versions.replace('>=', '<')}'" for i in issues)
        return Finding(WARN, what, f"pip install {fixes}, if you use that")
    return Finding(OK, f"{len(checked)} packages")


def _find_problems(extra: str, only: tuple[str, ...]) -> tuple[list[Problem], set[str]]:
    """Return the problems, and the names of all packages that were checked."""
    from packaging.utils import canonicalize_name

    problems: dict[str, Problem] = {}
    visited: set[tuple[str, tuple[str, ...]]] = set()
    pending: list[tuple[str, tuple[str, ...]]] = [(PACKAGE, (extra,))]
    while pending:
        package, extras = pending.pop()
        if (package, extras) in visited:
            continue
        visited.add((package, extras))
        for requirement in _requirements(package, extras):
            name = canonicalize_name(requirement.name)
            if package == PACKAGE and only and name not in (*only, PACKAGE):
                continue
            if problem := _problem(name, requirement, package):
                problems.setdefault(name, problem)
            if problem is None or not problem.missing:
                pending.append((name, tuple(sorted(requirement.extras))))
    order = sorted(problems.values(), key=lambda problem: (not problem.direct, problem.package))
    return order, {name for name, _ in visited if name != PACKAGE}


def _problem(name: str, requirement: Requirement, required_by: str) -> Problem | None:
    """Return the problem with a package that another package requires; None without a problem."""
    installed = _version(name)
    if installed is not None and requirement.specifier.contains(installed, prereleases=True):
        return None
    direct = required_by == PACKAGE
    state = "is missing" if installed is None else f"{installed} is not {requirement.specifier}"
    origin = "" if direct else f", which {required_by} requires"
    reason = f" ({REASONS[name]})" if name in REASONS else ""
    return Problem(name, f"{name} {state}{origin}{reason}", direct, installed is None)


@functools.cache
def _requirements(package: str, extras: tuple[str, ...]) -> tuple[Requirement, ...]:
    """Return what a package requires on this machine, with some of its extras."""
    from packaging.requirements import Requirement

    def applies(requirement: Requirement) -> bool:
        marker = requirement.marker
        return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))

    return tuple(filter(applies, map(Requirement, metadata.requires(package) or [])))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _has_issue(issue: KnownIssue) -> bool:
    from packaging.specifiers import SpecifierSet

    installed = _version(issue.package)
    affected = SpecifierSet(issue.versions)
    return installed is not None and affected.contains(installed, prereleases=True)
