"""Measures servers in turns, so that other load on the machine affects all of them."""

from __future__ import annotations

import contextlib
import http.client
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import prompts
from .client import Burst, ask, burst
from .models import Models
from .prompts import Messages
from .servers import Start, Target

START_S = 300
SETTLE_S = 2.0  # time without requests before the memory is measured
AFTER_SHORT, AFTER_ALL, PEAK = "after short prompts", "after all prompts", "at its peak"


class NotServedError(Exception):
    """A server does not serve the model, for example because it refuses the precision."""


@dataclass(frozen=True)
class Scenario:
    """Requests to measure.

    Attributes:
        name: name for the tables.
        clients: number of clients that send a request at the same moment.
        make_prompt: function that makes the prompt of one request.
        rounds: number of rounds, at most.
        warm: whether the same number of requests is sent before, without being measured.
    """

    name: str
    clients: int
    make_prompt: Callable[[], Messages]
    rounds: int
    warm: bool = False


SCENARIOS = (
    Scenario("short, 1 client", 1, prompts.short, 3),
    Scenario("short, 4 clients", 4, prompts.short, 2),
    Scenario("short, 16 clients", 16, prompts.short, 2, warm=True),
    Scenario("long, 1 client", 1, prompts.long, 2),
    Scenario("long, 4 clients", 4, prompts.long, 1),
    Scenario("long, 16 clients", 16, prompts.long, 1),
    Scenario("shared prefix, 16 clients", 16, prompts.shared, 1, warm=True),
)


@dataclass
class Figures:
    """The figures of one server.

    Attributes:
        name: name of the server.
        cold_s: seconds from the start to the first answer.
        bursts: results of each scenario, by its name.
        memory_mib: memory after the short prompts, after all prompts, and the largest one.
    """

    name: str
    cold_s: float
    bursts: dict[str, list[Burst]] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)

    def tokens_per_s(self, scenario: str) -> float:
        return statistics.median(item.tokens_per_s for item in self.bursts[scenario])

    def p50_s(self, scenario: str) -> float:
        return statistics.median(item.p50_s for item in self.bursts[scenario])

    def first_s(self, scenario: str) -> float:
        return statistics.median(item.first_s for item in self.bursts[scenario])


@dataclass(frozen=True)
class Entry:
    """A server to measure.

    Attributes:
        start: function that starts it.
        scenarios: names of the scenarios; None for all.
        rounds: number of rounds, at most.
    """

    start: Start
    scenarios: Sequence[str] | None = None
    rounds: int = 99

    def takes(self, scenario: Scenario, number: int) -> bool:
        """Return whether the server takes part in a round. Slow servers have one round, not warm."""
        skipped = self.scenarios is not None and scenario.name not in self.scenarios
        is_warm_up = number < 0 and self.rounds == 1
        return not skipped and not is_warm_up and number < self.rounds


def measure(
    entries: Sequence[Entry], models: Models, home: Path, rounds: int, names: Sequence[str]
) -> list[Figures]:
    """Start all servers, measure the scenarios of these names, and stop the servers.

    A server that does not serve the model is left out, and the reason is printed. If that is ours, the
    first one, nothing is measured.
    """
    with contextlib.ExitStack() as stack:
        servers: list[tuple[Entry, Target, Figures]] = []
        for number, entry in enumerate(entries):
            folder = home / str(number)
            folder.mkdir(parents=True)
            _log(f"starting server {number + 1} of {len(entries)}")
            try:
                target = stack.enter_context(ready(entry.start, models, folder))
            except NotServedError as error:
                print(f"server {number + 1} is left out: {error}", flush=True)
                if entry is entries[0]:
                    return []
                continue
            servers.append((entry, target, Figures(target.name, target.cold_s)))
        for scenario in SCENARIOS:
            if scenario.name in names:
                _run(scenario, servers, rounds)
                kind = AFTER_SHORT if scenario.name.startswith("short") else AFTER_ALL
                time.sleep(SETTLE_S)
                for _, target, figures in servers:
                    if scenario.name in figures.bursts:
                        figures.memory_mib[kind] = target.memory_mib()
        for _, target, figures in servers:
            figures.memory_mib[PEAK] = target.peak_mib()
        return [figures for _, _, figures in servers]


def _run(scenario: Scenario, servers: Sequence[tuple[Entry, Target, Figures]], rounds: int) -> None:
    """Measure one scenario on all servers, in turns. All servers get the same prompts."""
    for number in range(-int(scenario.warm), min(rounds, scenario.rounds)):
        messages = [scenario.make_prompt() for _ in range(scenario.clients)]
        expected: list[int] = []
        for entry, target, figures in servers:
            if not entry.takes(scenario, number):
                continue
            try:
                result = burst(target, messages)
                expected = _check_prompts(result, expected)
            except (OSError, RuntimeError) as error:
                if target is servers[0][1]:
                    raise
                print(f"{target.name} failed at {scenario.name}: {error}", flush=True)
                continue
            if number >= 0:
                figures.bursts.setdefault(scenario.name, []).append(result)
            figures_text = f"{result.tokens_per_s:.1f} tokens/s, first {result.first_s:.2f} s"
            _log(f"{target.name}, {scenario.name}: {figures_text}")


def _check_prompts(result: Burst, expected: list[int]) -> list[int]:
    """Return the numbers of prompt tokens, sorted.

    Raises:
        RuntimeError: they are not the expected ones.
    """
    counts = sorted(a.prompt_tokens for a in result.answers if a.prompt_tokens is not None)
    if counts and expected and counts != expected:
        raise RuntimeError(f"it counts {counts} prompt tokens, and our server counts {expected}")
    return expected or counts


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def ready(start: Start, models: Models, home: Path) -> Iterator[Target]:
    """Start a server, wait for its first answer, and yield it with the seconds that this took.

    Raises:
        NotServedError: the server ends before it answers.
    """
    with contextlib.ExitStack() as stack:
        try:
            target = stack.enter_context(start(models, home))
            target.cold_s = _wait_for_answer(target)
        except RuntimeError as error:
            raise NotServedError(_reason(str(error))) from error
        yield target


def _wait_for_answer(target: Target) -> float:
    """Return the seconds until a server that has just been started answers."""
    begin = time.perf_counter()
    while True:
        try:
            with contextlib.closing(target.connect(START_S)) as connection:
                ask(target, connection, prompts.short(), tokens=1)
            return time.perf_counter() - begin
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            expired = time.perf_counter() - begin > START_S
            if target.server.process.poll() is not None or expired:
                log = target.server.log.read_text(errors="replace")
                raise RuntimeError(f"{error}\n{log}") from error
            time.sleep(0.05)


def _reason(text: str) -> str:
    """Return the last line of a server's log that says what failed."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*Error: ", line)]
    return [*lines, *errors][-1]
