"""The files of scripts/azure are valid az-ml YAML, also for `az ml … --file`."""

from __future__ import annotations

import warnings

import pytest

from phi3_ops import paths
from phi3_ops.deploy.model import CONTRACTS

YAML = paths.AZURE
LOADERS = {
    "environment": "load_environment",
    "job": "load_job",
    "endpoint": "load_online_endpoint",
    "deployment-score": "load_online_deployment",
    "deployment-mlflow": "load_online_deployment",
    "deployment-vllm": "load_online_deployment",
    "flow-deployment": "load_online_deployment",
    "workspace": "load_workspace",
    "compute": "load_compute",
}


def load(name):
    import azure.ai.ml as ml

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(ml, LOADERS[name])(source=YAML / f"{name}.yml")


@pytest.mark.parametrize("name", sorted(path.stem for path in YAML.glob("*.yml")))
def test_file_is_valid(name):
    assert load(name).name or name == "job"


@pytest.mark.parametrize("variant", CONTRACTS)
def test_every_variant_keeps_the_tutorials_settings(variant):
    deployment = load(f"deployment-{variant}")
    assert deployment.request_settings.request_timeout_ms == 180_000
    for probe in (deployment.liveness_probe, deployment.readiness_probe):
        assert (probe.failure_threshold, probe.success_threshold) == (30, 1)
        assert (probe.period, probe.initial_delay) == (100, 500)


def test_the_job_runs_train_py_with_its_inputs():
    job = load("job")
    for part in ("python train.py", "inputs.recipe", "inputs.train_file", "outputs.model_output"):
        assert part in job.component.command
