"""A plan: its output, its changes, and when it asks for confirmation."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from phi3_ops.azure.plan import Plan, Step, confirm
from phi3_ops.errors import OpsError


class World:
    """Things that exist, and a plan that creates further ones."""

    def __init__(self, *existing: str):
        self.existing = list(existing)
        self.screen = io.StringIO()
        self.console = Console(file=self.screen, width=20)

    def create(self, name: str) -> None:
        if name == "bad":
            raise OpsError("no")
        self.existing.append(name)

    def plan(self, *names: str) -> Plan:
        steps = [
            Step(f"thing {name}", lambda n=name: n in self.existing, lambda n=name: self.create(n))
            for name in names
        ]
        return Plan("test", steps)

    @property
    def lines(self) -> list[str]:
        return self.screen.getvalue().splitlines()


def test_missing_things_are_created_in_order():
    world = World("b")
    assert world.plan("a", "b", "c").run(world.console) == 2
    assert world.existing == ["b", "a", "c"]
    assert world.lines == [
        "  created thing a (0 s)",
        "  exists   thing b",
        "  created thing c (0 s)",
        "test: done, 2 steps",
    ]


def test_a_dry_run_only_prints():
    world = World("b")
    assert world.plan("a", "b").run(world.console, dry_run=True) == 1
    assert world.existing == ["b"]
    assert world.lines[0] == "  would create thing a"
    assert world.lines[-1] == "test: 1 step would be taken; nothing was changed"


def test_a_second_run_changes_nothing():
    world = World()
    plan = world.plan("a", "b")
    plan.run(world.console)
    assert plan.run(world.console) == 0
    assert world.lines[-1] == "test: nothing to change"


def test_a_failure_stops_and_keeps_earlier_changes():
    world = World()
    with pytest.raises(OpsError, match="^no$"):
        world.plan("a", "bad", "c").run(world.console)
    assert world.existing == ["a"]


def test_an_azure_error_names_the_step():
    from azure.core.exceptions import HttpResponseError

    def refuse() -> None:
        raise HttpResponseError("Quota is short.\nMore lines.")

    plan = Plan("test", [Step("thing a", lambda: False, refuse)])
    with pytest.raises(OpsError, match=r"^create thing a: .*Quota is short\."):
        plan.run(World().console)


def test_markup_is_printed_as_text():
    world = World()
    Plan("test", [Step("thing [red]x[/red]", lambda: True, lambda: None)]).run(world.console)
    assert world.lines[0] == "  exists   thing [red]x[/red]"


@pytest.mark.parametrize(("verb", "past"), [("submit", "submitted"), ("delete", "deleted")])
def test_verbs(verb, past):
    world = World()
    Plan("test", [Step("x", lambda: False, lambda: None, verb)]).run(world.console)
    assert world.lines[0].startswith(f"  {past} x")


class TestConfirm:
    def at_a_terminal(self, monkeypatch, answer):
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("builtins.input", lambda question: answer)

    @pytest.mark.parametrize("answer", ["y", "Yes "])
    def test_yes(self, monkeypatch, answer):
        self.at_a_terminal(monkeypatch, answer)
        confirm("Sure?", yes=False)

    @pytest.mark.parametrize("answer", ["", "n", "yo"])
    def test_anything_else_is_no(self, monkeypatch, answer):
        self.at_a_terminal(monkeypatch, answer)
        with pytest.raises(OpsError, match="not confirmed"):
            confirm("Sure?", yes=False)

    def test_without_a_terminal(self):
        with pytest.raises(OpsError, match="Give --yes"):
            confirm("Sure?", yes=False)

    def test_a_plan_shows_itself_before_it_asks(self, monkeypatch):
        world = World()
        self.at_a_terminal(monkeypatch, "n")
        with pytest.raises(OpsError):
            world.plan("a").run_when_confirmed(world.console, "Sure?")
        assert world.existing == []
        assert world.lines[0] == "  would create thing a"

    def test_nothing_to_change_asks_nothing(self):
        world = World("a")
        assert world.plan("a").run_when_confirmed(world.console, "Sure?") == 0

    def test_yes_asks_nothing(self):
        world = World()
        assert world.plan("a").run_when_confirmed(world.console, "Sure?", yes=True) == 1
        assert world.existing == ["a"]
