"""`phi3 finetune`: its arguments, and what they become here and on Azure."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from offline_cloud import write_config
from phi3_ops import azure, paths, training
from phi3_ops.azure.plan import Plan
from phi3_ops.cli import main
from phi3_ops.training.local import TrainingMetrics

METRICS = TrainingMetrics(8, 2.0, 2.5, 1.5, 4.5, 3.5, 33.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0"], "--epochs: 0 is not above 0"),
        (["--epochs", "two"], "--epochs: two is not a number"),
        (["--rows", "0"], "--rows: 0 is below 1"),
        (["--processes", "x"], "--processes: x is not an integer"),
        (["--instances", "-1"], "--instances: -1 is below 1"),
        (["--seed", "x"], "--seed: x is not an integer"),
    ],
)
def test_wrong_usage(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["finetune", *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "option", "way"),
    [
        (["--local", "--cpu"], "--cpu", "--local"),
        (["--local", "--instances", "2"], "--instances", "--local"),
        (["--local", "--follow"], "--follow", "--local"),
        (["--local", "--dry-run"], "--dry-run", "--local"),
        (["--local", "--config", "phi3.yaml"], "--config", "--local"),
        (["--local", "--catalog"], "--catalog", "--local"),
        (["--local", "--set", "a=b"], "--set", "--local"),
        (["--json"], "--json", "a training job on Azure ML"),
        (["--machine", "H100"], "--machine", "a training job on Azure ML"),
        (["--local", "--hourly-price", "3"], "--hourly-price", "--local"),
        (["--estimate", "--seed", "3"], "--seed", "--estimate"),
        (["--train-file", "a", "--train-file", "b"], "a second --train-file", "a training job on"),
        (["--seed", "7"], "--seed", "a training job on Azure ML"),
        (["--resume"], "--resume", "a training job on Azure ML"),
        (["--general-file", "x"], "--general-file", "a training job on Azure ML"),
        (["--processes", "2"], "--processes", "a training job on Azure ML"),
        (["--output-dir", "out"], "--output-dir", "a training job on Azure ML"),
        (["--set", "a=b"], "--set", "a training job on Azure ML"),
        (["--catalog", "--recipe", "lora"], "--recipe", "--catalog"),
        (["--catalog", "--rows", "8"], "--rows", "--catalog"),
        (["--catalog", "--epochs", "2"], "--epochs", "--catalog"),
        (["--catalog", "--cpu"], "--cpu", "--catalog"),
    ],
)
def test_an_option_without_effect_is_refused(words, option, way, capsys):
    assert main(["finetune", *words]) == 2
    assert f"{option} has no effect with {way}" in capsys.readouterr().err


class TestLocal:
    @pytest.fixture
    def calls(self, monkeypatch):
        calls = []

        def finetune_locally(*files, **settings):
            calls.append((files, settings))
            return METRICS

        monkeypatch.setattr(training, "finetune_locally", finetune_locally)
        return calls

    def test_defaults(self, calls, tmp_path, capsys):
        assert main(["finetune", "--local", "--output-dir", str(tmp_path)]) == 0
        data = paths.WORKDIR / "data"
        (((*files, out), settings),) = calls
        assert files == [data / "train.jsonl", data / "test.jsonl"]
        assert out == tmp_path
        assert settings == {
            "recipe": None,
            "model": None,
            "general_file": None,
            "start_from": None,
            "processes": 1,
            "more_train_files": [],
            "extra": [],
        }
        output = capsys.readouterr().out
        assert output.startswith(f"loss 2.500 after 8 steps, in {tmp_path}")
        assert "33.100" in output

    def test_metrics_as_json(self, tmp_path, monkeypatch, capsys):
        def finetune_locally(*files, **settings):
            print("loading")
            (tmp_path / "metrics.json").write_text('{"steps": 8, "gpu": null}')
            return METRICS

        monkeypatch.setattr(training, "finetune_locally", finetune_locally)
        assert main(["finetune", "--local", "--json", "--output-dir", str(tmp_path)]) == 0
        output = capsys.readouterr()
        assert json.loads(output.out) == {"steps": 8, "gpu": None}
        assert "loading" in output.err

    def test_further_arguments_go_to_train_py(self, calls, tmp_path):
        words = ["--seed", "0", "--rows", "5", "--epochs", "0.5", "--model", "x", "--resume"]
        words += [
            "--from",
            "run",
            "--merge",
            "no",
            "--processes",
            "2",
            "--recipe",
            "lora",
            "--verbose",
            "--general-file",
            "g.jsonl",
            *("--train-file", "a", "--train-file", "b"),
        ]
        assert main(["finetune", "--local", "--output-dir", str(tmp_path), *words]) == 0
        ((files, settings),) = calls
        assert (files[0], settings["more_train_files"]) == (Path("a"), [Path("b")])
        assert (settings["recipe"], settings["processes"]) == ("lora", 2)
        assert settings["model"] == "x"
        assert settings["general_file"] == Path("g.jsonl")
        assert settings["start_from"] == Path("run")
        assert settings["extra"] == [
            *("--epochs", "0.5", "--rows", "5", "--seed", "0", "--merge", "no"),
            *("--resume", "--verbose"),
        ]


def test_without_a_configuration_the_error_names_local(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["finetune"]) == 1
    error = capsys.readouterr().err
    assert "phi3.yaml does not exist. Copy " in error
    assert error.endswith("To train on this machine, give --local.\n")


class TestAzure:
    @pytest.fixture
    def requests(self, monkeypatch, tmp_path):
        """The requests that are submitted; nothing is sent."""
        monkeypatch.chdir(tmp_path)
        finetune = {"train_file": "a.jsonl", "recipe": "qlora", "instances": 3}
        write_config(tmp_path, finetune=finetune)
        requests = []

        def submission(cloud, request):
            requests.append(request)
            return SimpleNamespace(name="phi3-job", plan=lambda: Plan("finetune"))

        for name in ("JobSubmission", "CatalogSubmission"):
            monkeypatch.setattr(training, name, submission)
        return requests

    def test_the_configuration_fills_in(self, requests, capsys):
        assert main(["finetune", "--cpu"]) == 0
        (request,) = requests
        assert (request.train_file, request.recipe) == (Path("a.jsonl"), "qlora")
        assert (request.instances, request.cpu, request.model) == (3, True, None)
        assert capsys.readouterr().out.splitlines()[-2:] == [
            "job phi3-job",
            "next, when the job has ended: phi3 deploy --job phi3-job",
        ]

    def test_arguments_win(self, requests):
        words = ["--recipe", "full", "--instances", "2", "--model", "x", "--rows", "9"]
        assert main(["finetune", *words, "--dry-run"]) == 0
        (request,) = requests
        assert (request.recipe, request.instances) == ("full", 2)
        assert (request.model, request.rows) == ("x", 9)

    def test_a_dry_run_has_no_job(self, requests, capsys):
        assert main(["finetune", "--dry-run", "--follow"]) == 0
        assert "phi3-job" not in capsys.readouterr().out

    def test_follow(self, requests, monkeypatch):
        followed = []
        monkeypatch.setattr(azure, "follow_job", lambda cloud, name: followed.append(name))
        assert main(["finetune", "--follow"]) == 0
        assert followed == ["phi3-job"]

    def test_the_catalogs_job(self, requests):
        words = ["--catalog", "--set", "learning_rate=2e-5", "--set", "num_train_epochs=2"]
        assert main(["finetune", *words]) == 0
        (request,) = requests
        assert request.model == "Phi-4-mini-instruct"
        assert request.settings == {"learning_rate": "2e-5", "num_train_epochs": "2"}

    def test_an_unknown_setting_is_one_line(self, requests, capsys):
        assert main(["finetune", "--catalog", "--set", "nonsense=1"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("phi3 finetune: --set nonsense=1. Give NAME=VALUE with one of")
