"""Whether the packages of an extra are installed, in versions that go together; nothing is imported."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from .runner import FAIL, OK, WARN, Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = "phi3-promptflow"
# What an unfit version leads to, where pip's words alone would not say.
WHY = {
    "azure-ai-ml": "from 1.33 on `import promptflow.azure` fails",
    "six": "azure-ai-ml imports it without asking for it",
    "promptflow-core": "others than 1.18 were not tried",
    "uvicorn": "`pf flow serve --engine fastapi` needs it, and the other engine has no page",
    "mlflow-skinny": "3.18.0 does not resolve",
}


@dataclass(frozen=True)
class KnownIssue:
    """A version that pip accepts, and what of prompt flow's own fails with it."""

    package: str
    versions: str
    why: str


KNOWN_ISSUES = (
    KnownIssue("filelock", ">=3.30", "`pf flow test --ui` fails"),
    KnownIssue("setuptools", ">=82", "`pf tool validate` fails, which wants pkg_resources"),
    KnownIssue(
        "promptflow-devkit", ">=1.19", "`phi3 run` was written for 1.18 and may not heed 429"
    ),
)


@dataclass(frozen=True)
class Problem:
    """A package that is missing or unfit."""

    package: str
    words: str
    direct: bool  # asked for by this product itself
    missing: bool


def check_packages(extra: str, only: Collection[str] = ()) -> Finding:
    """What is wrong with the packages of an extra, and with those that they ask for in turn.

    Args:
        extra: of this package.
        only: look at these of its packages alone.
    """
    install = f"pip install '{PACKAGE}[{extra}]'"
    try:
        found, seen = _problems(extra, tuple(only))
    except ModuleNotFoundError as error:  # `packaging`, which comes with [local]
        name = str(error.name).partition(".")[0]
        return Finding(
            FAIL, f"the package {name} is not installed", f"pip install '{PACKAGE}[local]'"
        )
    if found:
        bad = any(problem.direct or problem.missing for problem in found)
        words = "; ".join(problem.words for problem in found)
        return Finding(FAIL if bad else WARN, words, install)
    if extra == "local" and (traps := [t for t in KNOWN_ISSUES if _is(t.package, t.versions)]):
        words = "; ".join(f"{trap.package} {_version(trap.package)}: {trap.why}" for trap in traps)
        fixes = " ".join(f"'{trap.package}{trap.versions.replace('>=', '<')}'" for trap in traps)
        return Finding(WARN, words, f"pip install {fixes}, where you use that")
    return Finding(OK, f"{len(seen)} packages")


def _problems(extra: str, only: tuple[str, ...]) -> tuple[list[Problem], set[str]]:
    """The problems, and the names of all packages that were looked at."""
    from packaging.utils import canonicalize_name

    found: dict[str, Problem] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [(PACKAGE, (extra,))]
    while waiting:
        asking, extras = waiting.pop()
        if (asking, extras) in seen:
            continue
        seen.add((asking, extras))
        for requirement in _requirements(asking, extras):
            name = canonicalize_name(requirement.name)
            direct = asking == PACKAGE
            if direct and only and name not in (*only, PACKAGE):
                continue
            if problem := _problem(name, requirement, asking, direct):
                found.setdefault(name, problem)
            if problem is None or not problem.missing:
                waiting.append((name, tuple(sorted(requirement.extras))))
    order = sorted(found.values(), key=lambda problem: (not problem.direct, problem.package))
    return order, {name for name, _ in seen if name != PACKAGE}


def _problem(name: str, requirement: Requirement, asking: str, direct: bool) -> Problem | None:
    installed = _version(name)
    if installed is not None and requirement.specifier.contains(installed, prereleases=True):
        return None
    state = "is missing" if installed is None else f"{installed} is not {requirement.specifier}"
    by = "" if direct else f", which {asking} asks for"
    why = f" ({WHY[name]})" if name in WHY else ""
    return Problem(name, f"{name} {state}{by}{why}", direct, installed is None)


@functools.cache
def _requirements(package: str, extras: tuple[str, ...]) -> tuple[Requirement, ...]:
    """What a package asks for on this machine, with some of its extras."""
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


def _is(package: str, versions: str) -> bool:
    from packaging.specifiers import SpecifierSet

    installed = _version(package)
    return installed is not None and SpecifierSet(versions).contains(installed, prereleases=True)
