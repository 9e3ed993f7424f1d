"""Print a sweep: its estimate, and its cells with their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..progress import time_text
from ..terminal import console, counted, one_line, print_text
from ._records import print_table

if TYPE_CHECKING:
    from ..sweeps import CellEstimate, SweepPlan, SweepResult

NOT_KNOWN = "–"


def print_estimate(plan: SweepPlan, estimates: Sequence[CellEstimate]) -> None:
    """Print what a sweep would do."""
    print_text(f"{plan.config.name}: {len(plan.cells)} cells, {plan.lines:,} lines each")
    records = [
        {
            "cell": each.letter,
            "what": each.cell,
            "answered": each.answered,
            "calls": each.calls,
            "judge_calls": each.judge_calls,
            "tokens": _tokens_text(each),
            "time": _time(each.seconds),
            "cost": NOT_KNOWN if each.cost is None else f"{each.cost:.4g}",
        }
        for each in estimates
    ]
    columns = [name for name in records[0] if name not in _empty_columns(records)]
    print_table(
        records, columns, right=["answered", "calls", "judge_calls", "tokens", "time", "cost"]
    )
    for basis in dict.fromkeys(each.basis for each in estimates):
        letters = ", ".join(each.letter for each in estimates if each.basis == basis)
        print_text(f"{letters}: estimated from {basis}")
    print_text(_total(plan, estimates))


def _empty_columns(records: Sequence[dict[str, Any]]) -> set[str]:
    """Return the columns that say nothing: no judge, no price, nothing answered before."""
    optional = ("answered", "judge_calls", "cost")
    return {name for name in optional if all(r[name] in (0, NOT_KNOWN) for r in records)}


def _tokens_text(each: CellEstimate) -> str:
    if each.prompt_tokens is None:
        return NOT_KNOWN
    if each.completion_tokens is None:
        return f"{each.prompt_tokens:,} + answers"
    return f"{each.prompt_tokens + each.completion_tokens:,}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return NOT_KNOWN
    return time_text(seconds) if seconds >= 1 or not seconds else "under 1 s"


def _total(plan: SweepPlan, estimates: Sequence[CellEstimate]) -> str:
    calls = sum(each.calls for each in estimates)
    judge_calls = sum(each.judge_calls for each in estimates)
    parts = [f"{calls:,} calls"]
    if judge_calls:
        parts.append(f"at least {judge_calls:,} calls of a judge")
    seconds = [each.seconds for each in estimates if each.calls]
    known = [second for second in seconds if second is not None]
    if len(known) == len(seconds):
        parts.append(f"about {_time(sum(known))} for the answers")
    else:
        parts.append("unknown time")
    costs = [each.cost for each in estimates if each.calls]
    amounts = [cost for cost in costs if cost is not None]
    if costs and len(amounts) == len(costs):
        parts.append(f"about {sum(amounts):.4g} {one_line(plan.config.currency)}")
    return f"total: {', '.join(parts)}"


def print_result(result: SweepResult) -> None:
    """Print the cells of a sweep with their results, and the winner."""
    screen = console()
    for cell in result.cells:
        failed = f" ({cell.failed:,} of {result.lines:,} lines failed)" if cell.failed else ""
        print_text(f"  {cell.letter}  {one_line(cell.label)}{failed}")
    for metric in result.metrics:
        screen.print(_metric_table(result, metric))
    screen.print(_expense_table(result))
    print_text(one_line(result.decision.reason))


def _new_table(title: str, columns: Sequence[str]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="left" if name in ("cell", "verdict") else "right")
    return table


def _metric_table(result: SweepResult, metric: str) -> Any:
    from ..comparison import format_p_value, format_signed

    columns = ("cell", "mean", "95 % interval", "difference", "its interval", "p", "verdict")
    number = counted(len(result.differences), "comparison")
    title = f"{one_line(metric)}; differences from A, intervals and p corrected for {number}"
    table = _new_table(title, columns)
    for cell in result.cells:
        score, entry = cell.scores[metric], result.difference(cell.letter, metric)
        cells = [_number(score.mean), _interval(_number, score.low, score.high)]
        if entry is not None:
            interval = _interval(format_signed, entry.corrected_low, entry.corrected_high)
            p_value = format_p_value(entry.corrected_p_value)
            cells += [format_signed(entry.difference), interval, p_value, entry.verdict]
        else:
            cells += ["", "", "", "baseline"]
        table.add_row(cell.letter, *cells)
    return table


def _number(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.3g}"


def _interval(form: Any, low: float | None, high: float | None) -> str:
    return NOT_KNOWN if low is None else f"{form(low)} to {form(high)}"


def _expense_table(result: SweepResult) -> Any:
    table = _new_table(
        "Expense of the answers",
        (
            "cell",
            "latency p50",
            "p95",
            "tokens",
            f"cost, {one_line(result.currency)}",
            "on the front",
        ),
    )
    for cell in result.cells:
        fronts = [name for name, letters in result.pareto.items() if cell.letter in letters]
        table.add_row(
            cell.letter,
            _seconds(cell.latency_p50),
            _seconds(cell.latency_p95),
            NOT_KNOWN if cell.tokens is None else f"{cell.tokens:,}",
            NOT_KNOWN if cell.cost is None else f"{cell.cost:.4g}",
            ", ".join(fronts),
        )
    return table


def _seconds(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.3g} s"
