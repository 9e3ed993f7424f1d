"""`phi3 deploy`: its arguments, and what they become."""

from __future__ import annotations

import pytest

from offline_cloud import write_config
from phi3_ops.cli import main
from phi3_ops.cli.deploy import percentages


@pytest.fixture
def config(tmp_path):
    """A configuration file."""
    return write_config(tmp_path)


@pytest.mark.parametrize(("text", "value"), [("100", (100,)), ("10,50,100", (10, 50, 100))])
def test_percentages(text, value):
    assert percentages(text) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--canary", "a,b"],
            "--canary: 'a,b' is not a list of percentages, for example 10,50,100",
        ),
        (["--canary", ""], "--canary: '' is not a list of percentages"),
        (["--mirror", "x"], "--mirror: x is not an integer"),
        (["--soak", "x"], "--soak: x is not a number"),
        (["--drain", "x"], "--drain: x is not a number"),
        (["--job", "a", "--flow", "b"], "--flow: not allowed with argument --job"),
    ],
)
def test_wrong_usage(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["deploy", *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--endpoint", "x"], "--endpoint needs --flow. phi3.yaml names the model's endpoint."),
        (["--canary", "50,10"], "canary steps [50, 10]. Give rising percentages up to 100."),
        (["--mirror", "60"], "mirror 60 %. Give 0 to 50."),
        (["--config", "none.yaml"], "none.yaml does not exist"),
    ],
)
def test_refusals_are_one_line(words, message, capsys):
    assert main(["deploy", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"phi3 deploy: {message}")


@pytest.fixture
def rollouts(monkeypatch):
    """The arguments of `Rollout`, whose plan is empty."""
    from phi3_ops import deploy
    from phi3_ops.azure.plan import Plan

    calls = []

    class Recorder:
        def __init__(self, cloud, options, deployment, print_line):
            calls.append((options, deployment))

        def plan(self):
            return Plan("deploy")

    monkeypatch.setattr(deploy, "Rollout", Recorder)
    monkeypatch.setattr(deploy, "ModelDeployment", lambda cloud, job: ("model", job))
    monkeypatch.setattr(
        deploy, "FlowDeployment", lambda cloud, flow, name: ("flow", flow.folder.name, name)
    )
    return calls


def test_a_job(rollouts, config):
    words = ["--job", "phi3-one", "--canary", "100", "--mirror", "5", "--soak", "1.5", "--keep-old"]
    assert main(["deploy", "--config", str(config), *words]) == 0
    ((options, deployment),) = rollouts
    assert deployment == ("model", "phi3-one")
    assert (options.canary, options.mirror, options.soak_s) == ((100,), 5, 1.5)
    assert (options.drain_s, options.keep_old) == (30.0, True)


def test_a_flow(rollouts, config):
    assert main(["deploy", "--config", str(config), "--flow", "chat", "--endpoint", "own"]) == 0
    ((options, deployment),) = rollouts
    assert deployment == ("flow", "chat", "own")
    assert options.canary == (10, 50, 100)
