"""Journeys: the real commands, in the order of a person's day, with an empty home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from person import Person
from smollm2 import SMOLLM2_CACHE


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """A new user, who stays for all tests of a file. All processes that they started are killed."""
    person = new_person(tmp_path_factory.mktemp("person"))
    yield person
    person.leave()


@pytest.fixture
def visitor(tmp_path: Path) -> Iterator[Person]:
    """A new user for one test."""
    person = new_person(tmp_path)
    yield person
    person.leave()


@pytest.fixture(scope="module")
def smollm2_cache(smollm2_folder: Path) -> dict[str, str]:
    """The variable with which a person finds the converted smollm2 of the tests."""
    return {"PHI3_CACHE": str(SMOLLM2_CACHE)}


def new_person(folder: Path) -> Person:
    """Return a user whose home and current folder are new folders."""
    return Person(home=folder / "home", folder=folder / "work")
