"""The trackers besides MLflow: the same metrics, and an error of a tracker ends only its logging."""

import importlib.util
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import trackers
from inputs import TrainError, read_recipe
from training_run import TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def fake_package(monkeypatch):
    """A function that installs a package whose functions record their calls."""

    def install(name, **functions):
        module, calls = ModuleType(name), []
        module.__spec__ = SimpleNamespace(name=name)
        for function in ("init", "log", "finish"):

            def record(*args, _function=function, **kwargs):
                calls.append((_function, args, kwargs))

            setattr(module, function, functions.get(function, record))
        monkeypatch.setitem(sys.modules, name, module)
        return calls

    return install


def test_what_is_not_installed_is_refused_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    recipe = replace(read_recipe(TINY_RECIPE), report_to=["mlflow", "wandb"])
    with pytest.raises(TrainError, match=r"has mlflow, .* r.yaml: pip install mlflow-skinny, or"):
        trackers.check_installed(recipe, "r.yaml")
    recipe = replace(recipe, report_to=["trackio"])
    with pytest.raises(
        TrainError, match="`report_to` has trackio, which is not installed, r.yaml: pip"
    ):
        trackers.check_installed(recipe, "r.yaml")


@pytest.mark.parametrize(("name", "end"), [("wandb", {"exit_code": 1}), ("trackio", {})])
def test_a_project_tracker_gets_settings_metrics_and_the_end(fake_package, tmp_path, name, end):
    calls = fake_package(name)
    with (
        pytest.raises(KeyboardInterrupt),
        trackers.Trackers(["mlflow", name], tmp_path, {"seed": 1}, "lora") as running,
    ):
        running.log({"loss": 2.0}, 10)
        raise KeyboardInterrupt
    start = {"project": "phi3-finetune", "name": "lora", "config": {"seed": 1}}
    assert calls == [
        ("init", (), start),
        ("log", ({"loss": 2.0},), {"step": 10}),
        ("finish", (), end),
    ]


def test_an_error_of_a_tracker_is_printed_once_and_ends_nothing(fake_package, tmp_path, capsys):
    def fail(*args, **kwargs):
        raise ValueError("a key")

    calls = fake_package("trackio")
    fake_package("wandb", log=fail)
    with trackers.Trackers(["wandb", "trackio"], tmp_path, {}, "lora") as running:
        running.log({"loss": 2.0}, 1)
        running.log({"loss": 1.0}, 2)
    assert [call[0] for call in calls] == ["init", "log", "log", "finish"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "logging to wandb failed and is turned off (ValueError); training continues"
    )


def test_tensorboard_reads_the_files_in_the_output(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with trackers.Trackers(["tensorboard"], tmp_path, {"seed": 1}, "lora") as running:
        running.log({"loss": 2.0}, 10)
        running.log({"loss": 1.0, "eval_loss": 1.5}, 20)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    assert folder.name.startswith("lora-")
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 2), (20, 1)]
    assert [event.step for event in events.Scalars("eval_loss")] == [20]
    (settings,) = events.Tensors("settings/text_summary")
    assert settings.tensor_proto.string_val == [b"{'seed': 1}"]


def test_a_run_without_mlflow_logs_only_to_the_others(fake_package, tmp_path):
    from tracking import Tracking

    calls = fake_package("trackio")
    with Tracking(tmp_path / "mlruns", {}, "lora", ["trackio"]) as tracking:
        tracking.log({"loss": 1.0, "note": "text"}, 3)
    assert [call[0] for call in calls] == ["init", "log", "finish"]
    assert calls[1][1:] == (({"loss": 1.0},), {"step": 3})
    assert not (tmp_path / "mlruns").exists()
