"""Print a comparison: the runs, tables that fit the terminal, and the verdict of the gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..terminal import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from ..comparison import Comparison, PairedResult

MAX_FACT = 60  # characters of a recorded property that are printed
MAX_NAME = 28  # characters of a name that stay on one line if the terminal is narrow
COLUMNS = ("n", "mean of A", "mean", "difference", "95 % interval", "won/lost/tied", "p")
# The columns that a narrow terminal lacks, the first of them first. compare.html has all.
LESS_IMPORTANT = ("p", "won/lost/tied", "n", "95 % interval", "mean of A")
GAP = 2  # characters between two columns, and at the edges of a table together


def print_comparison(screen: Any, comparison: Comparison) -> None:
    """Print a comparison.

    Args:
        screen: the console.
        comparison: the comparison.
    """
    _print_runs(screen, comparison)
    rows = [
        ((entry.run, one_line(entry.metric)), _result_cells(entry.result))
        for entry in comparison.comparisons
    ]
    left_out = _print_table(screen, "Scores", ("run", "score"), rows)
    if any(entry.slices for entry in comparison.comparisons):
        names = ("slice", "run", "score")
        left_out += _print_table(screen, "Slices", names, _slice_rows(comparison))
    if left_out:
        columns = ", ".join(name for name in COLUMNS if name in left_out)
        print_line(screen, f"the terminal is too narrow for: {columns}; compare.html has all")
    _print_notes(screen, comparison)


def _print_runs(screen: Any, comparison: Comparison) -> None:
    data = comparison.data
    print_line(screen, f"{data.lines:,} lines of {one_line(data.path)}")
    for run in comparison.runs:
        failed = f", {run.failed:,} failed" if run.failed else ""
        note = f" ({one_line(run.note)})" if run.note else ""
        name = one_line(run.name)
        print_line(screen, f"  {run.letter}  {name}: {run.answered:,} answered{failed}{note}")
    for difference in comparison.differences:
        values = " | ".join(
            "–" if value is None else _shorten(value) for value in difference.values
        )
        print_line(screen, f"     {one_line(difference.fact)}: {values}")


def _shorten(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= MAX_FACT else line[: MAX_FACT - 1] + "…"


Row = tuple[Sequence[str], dict[str, str]]  # the names, and the cells by their column


def _slice_rows(comparison: Comparison) -> list[Row]:
    parts = [(entry, part) for entry in comparison.comparisons for part in entry.slices]
    parts.sort(key=lambda pair: (pair[1].by, pair[1].value))
    rows: list[Row] = []
    previous = None
    for entry, part in parts:
        title = one_line(f"{part.by}: {part.value}")
        names = ("" if title == previous else title, entry.run, one_line(entry.metric))
        rows.append((names, _result_cells(part.result)))
        previous = title
    return rows


def _print_table(
    screen: Any, title: str, names: Sequence[str], rows: Sequence[Row]
) -> tuple[str, ...]:
    """Print a table, and return the columns that were left out because of the terminal's width."""
    left_out: tuple[str, ...] = ()
    for number in range(len(LESS_IMPORTANT) + 1):
        left_out = LESS_IMPORTANT[:number]
        columns = [name for name in COLUMNS if name not in left_out]
        if _width(names, columns, rows) <= screen.width:
            break
    screen.print(_table(title, names, columns, rows))
    return left_out


def _width(names: Sequence[str], columns: Sequence[str], rows: Sequence[Row]) -> int:
    """Return the width of a table whose long names are folded."""
    from rich.cells import cell_len

    name_columns = zip(names, *(row_names for row_names, _ in rows))
    cell_columns = [[name, *(cells[name] for _, cells in rows)] for name in columns]
    widths = [min(max(map(cell_len, column)), MAX_NAME) for column in name_columns]
    widths += [max(map(cell_len, column)) for column in cell_columns]
    return sum(widths) + GAP * (len(widths) + 1)


def _table(title: str, names: Sequence[str], columns: Sequence[str], rows: Sequence[Row]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0)
    )
    for name in names:
        table.add_column(name, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row_names, cells in rows:
        table.add_row(*row_names, *(cells[name] for name in columns))
    return table


def _result_cells(result: PairedResult) -> dict[str, str]:
    from ..comparison import format_number, format_p_value, format_signed

    outcomes = result.outcomes
    cells = (
        f"{result.n:,}",
        format_number(result.baseline_mean),
        format_number(result.mean),
        format_signed(result.difference),
        f"{format_signed(result.low)} to {format_signed(result.high)}",
        f"{outcomes.wins}/{outcomes.losses}/{outcomes.ties}" if outcomes else "–",
        format_p_value(outcomes.p_value) if outcomes else "–",
    )
    return dict(zip(COLUMNS, cells))


def _print_notes(screen: Any, comparison: Comparison) -> None:
    entries = comparison.comparisons
    for entry in entries:
        if entry.unscored:
            share = entry.unscored / comparison.data.lines
            print_line(
                screen, f"{entry.run}, {entry.metric}: {share:.1%} of the lines have no score"
            )
    if len(entries) > 1:
        note = "about 1 in 20 comparisons looks significant by chance"
        print_line(screen, f"{len(entries)} comparisons: {note}")
    for entry in entries:
        if entry.gate:
            print_line(
                screen,
                f"gate {entry.run}, {entry.metric}: {entry.gate.verdict} ({entry.gate.reason})",
            )
    if comparison.gate:
        print_line(screen, f"gate: {comparison.gate.verdict}")


def print_line(screen: Any, text: str) -> None:
    """Print a line as it is, without highlighting."""
    screen.print(text, highlight=False, soft_wrap=True)
