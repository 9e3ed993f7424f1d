"""`phi3 down`: the scopes that its options choose, and what it prints."""

from __future__ import annotations

import pytest

from offline_cloud import write_config
from phi3_ops import azure
from phi3_ops.azure.plan import Plan
from phi3_ops.azure.teardown import (
    ENDPOINT_ONLY,
    EVERYTHING,
    EXPIRING,
    RESOURCES_IN_USE,
    KeptResource,
    TeardownPlan,
)
from phi3_ops.cli import main


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """The arguments of `plan_teardown`, whose plan is empty."""
    calls = []

    def plan_teardown(cloud, kinds, *, expired):
        calls.append((kinds, expired))
        return TeardownPlan(Plan("down"), [KeptResource("endpoint", "e", "x would be deleted")])

    monkeypatch.setattr(azure, "plan_teardown", plan_teardown)
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    return calls


@pytest.mark.parametrize(
    ("words", "kinds", "expired"),
    [
        ([], RESOURCES_IN_USE, False),
        (["--endpoint-only"], ENDPOINT_ONLY, False),
        (["--expired"], EXPIRING, True),
        (["--everything"], EVERYTHING, False),
    ],
)
def test_the_scope(planned, capsys, words, kinds, expired):
    assert main(["down", *words]) == 0
    assert planned == [(kinds, expired)]
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["  kept     endpoint e: x would be deleted", "down: nothing to change"]


@pytest.mark.parametrize("words", [("--expired", "--everything"), ("--endpoint-only", "--expired")])
def test_wrong_usage(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["down", *words])
    assert end.value.code == 2
    assert "usage: phi3 down" in (err := capsys.readouterr().err)
    assert f"{words[1]}: not allowed with argument {words[0]}" in err
