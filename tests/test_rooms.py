"""The rooms of the two packages: what they import of each other, and that only by the front door.

import-linter (pyproject.toml) holds the direction of imports. This file adds what it cannot say: other
rooms import from a room's `__init__` only, and that exports nothing else. Run as a script, it prints the
number of rooms, of arrows between them and of circles.

    python tests/test_rooms.py [REPOSITORY]
"""

from __future__ import annotations

import ast
import functools
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"phi3_ops": "scripts/phi3_ops", "phi3_tools": "tools/phi3_tools"}
# Uploaded to Azure by itself, so it imports nothing of the repository.
STANDALONE = ("scripts/training", "scripts/serving")


@dataclass(frozen=True)
class Import:
    """One imported name: by which module, from which module."""

    importer: str
    module: str
    name: str


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the file of every module of the two packages."""
    for package, folder in PACKAGES.items():
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root / folder).with_suffix("").parts
            names = [package, *(part for part in parts if part != "__init__")]
            yield ".".join(names), file


def imports_of(name: str, file: Path) -> Iterator[Import]:
    """Yield what a module imports of the two packages, in whatever scope."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(name, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: -(node.level - 1) or None] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (Import(name, module, alias.name) for alias in node.names)


def room_of(module: str, root: Path = ROOT) -> str | None:
    """Return the room that a module is in; None for top-level modules and foreign ones."""
    parts = module.split(".")
    is_room = len(parts) > 1 and parts[0] in PACKAGES
    if is_room and (root / PACKAGES[parts[0]] / parts[1]).is_dir():
        return ".".join(parts[:2])
    return None


@functools.cache
def imports_between_rooms(root: Path = ROOT) -> list[Import]:
    """Return every import of something in a room by a module outside that room."""
    return [
        each
        for name, file in modules(root)
        for each in imports_of(name, file)
        if room_of(each.module, root) not in (None, room_of(name, root))
    ]


def exported(room: str) -> list[str]:
    """Return `__all__` of a room's `__init__`."""
    package, _, folder = room.partition(".")
    text = (ROOT / PACKAGES[package] / folder / "__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


# Used by flows and programs outside this repository; tests/phi3_tools/flow pins its names.
PUBLIC = "phi3_tools.flow"
ROOMS = sorted({room for name, _ in modules(ROOT) if (room := room_of(name))} - {"phi3_ops.cli"})


def test_other_rooms_are_entered_by_the_front_door():
    inside = [each for each in imports_between_rooms() if each.module.count(".") > 1]
    assert inside == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_exports_what_others_use_and_nothing_else(room):
    used = {each.name for each in imports_between_rooms() if each.module == room}
    flows = [ast.parse(file.read_text()) for file in (ROOT / "flows").rglob("*.py")]
    for node in (node for tree in flows for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and node.module == room:
            used |= {alias.name for alias in node.names}
    assert set(exported(room)) == used or (room == PUBLIC and set(exported(room)) >= used)


@pytest.mark.parametrize("room", [*ROOMS, "phi3_ops.cli"])
def test_a_room_says_what_happens_in_it(room):
    package, _, folder = room.partition(".")
    text = (ROOT / PACKAGES[package] / folder / "__init__.py").read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("folder", STANDALONE)
def test_uploaded_code_imports_nothing_of_the_repository(folder):
    files = sorted((ROOT / folder).glob("*.py"))
    assert files
    for file in files:
        assert not {each.module.split(".")[0] for each in imports_of("", file)} & set(PACKAGES), (
            file
        )


def measure(root: Path) -> str:
    """Describe the rooms of a repository, and the circles among its modules, in one line."""
    graph: dict[str, set[str]] = defaultdict(set)
    known = dict(modules(root))
    for name, file in known.items():
        for each in imports_of(name, file):
            targets = (f"{each.module}.{each.name}", each.module)
            target = next((module for module in targets if module in known), None)
            if target and target != name and known[target].name != "__init__.py":
                graph[name].add(target)
    circles = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
            break
        except CycleError as error:
            circles.append(error.args[1])
            graph[error.args[1][1]].discard(error.args[1][0])
    rooms = {room for name in known if (room := room_of(name, root))}
    arrows = {
        (room_of(each.importer, root), room_of(each.module, root))
        for each in imports_between_rooms(root)
    }
    flat = [name for name in known if name.count(".") == 1 and name not in rooms]
    return (
        f"{len(rooms)} rooms, {len(arrows)} arrows between rooms, {len(flat)} modules outside rooms,"
        f" {len(circles)} circles {[' -> '.join(circle) for circle in circles]}"
    )


if __name__ == "__main__":
    print(measure(Path(sys.argv[1]) if sys.argv[1:] else ROOT))
