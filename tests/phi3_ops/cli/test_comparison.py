"""The tables of a comparison fit the terminal: names stay, and the least important columns go first."""

from __future__ import annotations

import io

import pytest

from hostile_answers import hostile_report
from phi3_ops.cli._comparison import COLUMNS, LESS_IMPORTANT, print_comparison
from phi3_ops.terminal import console


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return hostile_report(tmp_path_factory.mktemp("comparison"))


def printed(comparison, width):
    """Return the lines that a console of this width prints."""
    screen = console()
    screen.file, screen.width = io.StringIO(), width
    print_comparison(screen, comparison)
    return screen.file.getvalue().splitlines()


def head_of(lines):
    return next(line for line in lines if line.split()[:2] == ["run", "score"])


def table_lines(lines):
    """Return the lines of both tables; the other lines are wrapped by the terminal."""
    start = lines.index(next(line for line in lines if line.startswith("Scores")))
    return [line for line in lines[start:] if line.startswith(" ")]


def test_a_wide_terminal_has_all_columns(comparison):
    lines = printed(comparison, 200)
    assert all(name in head_of(lines) for name in COLUMNS)
    assert not any("too narrow" in line for line in lines)


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_has_the_names_and_lacks_the_least_important_columns(comparison, width):
    lines = printed(comparison, width)
    assert max(map(len, table_lines(lines))) <= width
    (note,) = [line for line in lines if "too narrow" in line]
    left_out = note.partition(": ")[2].partition(";")[0].split(", ")
    assert set(left_out) <= set(LESS_IMPORTANT) and "p" in left_out
    assert "exact_match" in " ".join(lines)
    assert "difference" in head_of(lines) and "mean" in head_of(lines)


def test_80_columns_have_the_interval(comparison):
    assert "95 % interval" in head_of(printed(comparison, 80))
