"""Turns figures into a table of everything and into rows of ours beside the best peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench_rows import Row

from .measure import AFTER_ALL, AFTER_SHORT, PEAK, SCENARIOS, Figures
from .servers import WITH_SCHEMA

TOKENS_16_CLIENTS, TOKENS_1_CLIENT = 1.2, 1.0
FIRST_TEXT_16_CLIENTS = 0.8
MEMORY_OF_LLAMA_CPP = 1.2
SCHEMA_TOKENS, SCHEMA_FIRST_TEXT = 0.8, 1.5  # with a schema, beside the same server without one


def print_table(precision: str, figures: Sequence[Figures]) -> None:
    """Print all figures of the servers of one precision class."""
    width = max(len(item.name) for item in figures)
    print(f"\n{precision}: tokens/s, median seconds per answer, median seconds to the first text")
    print(f"{'':26}" + "".join(f"  {item.name:^{max(width, 18)}}" for item in figures))
    for scenario in SCENARIOS:
        cells = [_cell(item, scenario.name) for item in figures]
        if any(cells):
            print(f"{scenario.name:26}" + "".join(f"  {c:^{max(width, 18)}}" for c in cells))
    rows = [("cold start, s", [f"{item.cold_s:.1f}" for item in figures])]
    for kind in (AFTER_SHORT, AFTER_ALL, PEAK):
        memory = [item.memory_mib.get(kind) for item in figures]
        rows.append((f"MiB, {kind}", [f"{value:.0f}" if value else "" for value in memory]))
    for name, texts in rows:
        print(f"{name:26}" + "".join(f"  {text:^{max(width, 18)}}" for text in texts))
    print(flush=True)


def _cell(figures: Figures, scenario: str) -> str:
    if scenario not in figures.bursts:
        return ""
    values = figures.p50_s(scenario), figures.first_s(scenario)
    return f"{figures.tokens_per_s(scenario):6.1f} {values[0]:5.2f} {values[1]:5.2f}"


def rows_of(precision: str, figures: Sequence[Figures]) -> Iterator[Row]:
    """Yield our figures beside the best peer's of the same class, with the limits."""
    peers = [item for item in figures if not item.name.startswith("ours")]
    for item in figures:
        if item.name == WITH_SCHEMA:
            yield from _rows_with_schema(precision, item, figures[0])
        elif item.name.startswith("ours") and peers:
            label = precision + item.name.removeprefix("ours")
            yield from _rows_beside_peers(label, item, peers)


def _rows_with_schema(precision: str, ours: Figures, free: Figures) -> Iterator[Row]:
    for scenario in SCENARIOS:
        name = scenario.name
        arguments = (ours, [free], name)
        label = f"{precision}, {name}"
        yield from _row(label, "tokens/s", *arguments, Figures.tokens_per_s, SCHEMA_TOKENS)
        first = f"{label}, first text"
        yield from _row(first, "s", *arguments, Figures.first_s, SCHEMA_FIRST_TEXT)


def _rows_beside_peers(precision: str, ours: Figures, peers: Sequence[Figures]) -> Iterator[Row]:
    for scenario in SCENARIOS:
        name, clients = scenario.name, scenario.clients
        tokens_limit = {1: TOKENS_1_CLIENT, 16: TOKENS_16_CLIENTS}.get(clients)
        first_limit = FIRST_TEXT_16_CLIENTS if clients == 16 else None
        label = f"{precision}, {name}"
        yield from _row(label, "tokens/s", ours, peers, name, Figures.tokens_per_s, tokens_limit)
        yield from _row(f"{label}, p50", "s", ours, peers, name, Figures.p50_s)
        yield from _row(
            f"{label}, first text", "s", ours, peers, name, Figures.first_s, first_limit
        )
    yield from _memory_rows(precision, ours, peers)
    fastest = min(peers, key=lambda peer: peer.cold_s)
    yield Row(f"{precision}, cold start", "s", ours.cold_s, fastest.cold_s, fastest.name)


def _row(
    label: str,
    unit: str,
    ours: Figures,
    peers: Sequence[Figures],
    scenario: str,
    value: Callable[[Figures, str], float],
    limit: float | None = None,
) -> Iterator[Row]:
    measured = [peer for peer in peers if scenario in peer.bursts]
    if scenario not in ours.bursts or not measured:
        return
    more = unit == "tokens/s"
    best = (max if more else min)(measured, key=lambda peer: value(peer, scenario))
    figures = value(ours, scenario), value(best, scenario)
    yield Row(label, unit, *figures, best.name, limit, more)


def _memory_rows(precision: str, ours: Figures, peers: Sequence[Figures]) -> Iterator[Row]:
    for kind, memory in ours.memory_mib.items():
        for peer in peers:
            if peer.name.startswith("llama.cpp") and kind in peer.memory_mib:
                label = f"{precision}, memory {kind}"
                values = memory, peer.memory_mib[kind]
                yield Row(label, "MiB", *values, peer.name, MEMORY_OF_LLAMA_CPP)
