"""Jobs, which really run, and the models that come from them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from fake_azure import FakeAzure

WORKSPACE = "ws"


def test_a_job_runs_and_its_files_are_stored(job: Any, azure: FakeAzure) -> None:
    assert job.status == "Completed"
    names = azure.storage.names(f"azureml-{WORKSPACE}", f"ExperimentRun/dcid.{job.name}")
    assert {name.rsplit("/", 1)[1] for name in names} == {"metrics.json", "std_log.txt"}


def test_a_job_that_fails(
    client: Any, environment: Any, azure: FakeAzure, capsys: pytest.CaptureFixture[str]
) -> None:
    from azure.ai.ml import command
    from azure.ai.ml.exceptions import JobException

    # A job that ends before the first poll has no streamed output, as on Azure.
    script = "python -c 'import time; print(\"started\", flush=True); time.sleep(2); raise SystemExit(3)'"
    with pytest.raises(JobException, match="Exit status 3"):
        client.jobs.stream(
            client.jobs.create_or_update(
                command(command=script, environment=environment, compute="gpu")
            ).name
        )
    assert "started" in capsys.readouterr().out
    azure.fail_job(message="the node was preempted")
    made = client.jobs.create_or_update(
        command(command="true", environment=environment, compute="gpu")
    )
    with pytest.raises(JobException, match="preempted"):
        client.jobs.stream(made.name)


def test_a_catalog_fine_tuning_job(client: Any, source: Path, azure: FakeAzure) -> None:
    from azure.ai.ml.finetuning import FineTuningTaskType, create_finetuning_job

    made = client.jobs.create_or_update(
        create_finetuning_job(
            model="azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1",
            task=FineTuningTaskType.CHAT_COMPLETION,
            training_data=str(source / "rows.txt"),
            validation_data=str(source / "rows.txt"),
            hyperparameters={"learning_rate": "0.00002"},
            output_model_name_prefix="phi-4-tuned",
            name="tuned",
            experiment_name="x",
        )
    )
    assert status_of(client, made.name) == "Completed"
    assert azure.storage.names(f"azureml-blobstore-{WORKSPACE}", "azureml/tuned")


def status_of(client: Any, job: str) -> str:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        status = client.jobs.get(job).status
        if status in ("Completed", "Failed", "Canceled"):
            return status
        time.sleep(0.05)
    raise AssertionError(f"{job} is {status}")


def test_a_model_is_stored_with_its_job(client: Any, model: Any, azure: FakeAzure) -> None:
    assert client.models.get("phi", label="latest").version == "1"
    assert model.path.endswith("/datastores/workspaceblobstore/paths/azureml/job1/model/")
    names = azure.storage.names(f"azureml-blobstore-{WORKSPACE}", "azureml/job1/model")
    assert names == ["azureml/job1/model/inner/model.txt"]
