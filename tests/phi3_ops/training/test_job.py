"""Jobs: their identity, their settings, and what is refused before any request to Azure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from offline_cloud import missing, offline_cloud, operations
from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.training.job import (
    JobRequest,
    JobSubmission,
    _code_files,
    latest_completed,
    require_file,
)


@pytest.fixture
def cloud():
    return offline_cloud()


@pytest.fixture
def files(tmp_path):
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(f"{name}\n")
    return {"train_file": tmp_path / "train.jsonl", "eval_file": tmp_path / "test.jsonl"}


def request(files, **more):
    return JobRequest(**files, recipe="tiny-cpu", **more)


def test_the_same_content_is_the_same_job(cloud, files):
    first, second = (JobSubmission(cloud, request(files)).digest for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "more", [{"rows": 10}, {"epochs": 2.0}, {"model": "x/y"}, {"cpu": True}, {"instances": 2}]
)
def test_other_settings_are_another_job(cloud, files, more):
    plain = JobSubmission(cloud, request(files)).digest
    assert JobSubmission(cloud, request(files, **more)).digest != plain


def test_other_data_is_another_job(cloud, files):
    before = JobSubmission(cloud, request(files)).digest
    files["train_file"].write_text("more\n")
    assert JobSubmission(cloud, request(files)).digest != before


def test_a_missing_file_is_named(cloud, files):
    files["train_file"] = Path("nowhere.jsonl")
    with pytest.raises(OpsError, match=r"nowhere\.jsonl does not exist"):
        JobSubmission(cloud, request(files))


def test_a_recipe_outside_the_uploaded_folder_is_refused(cloud, files, tmp_path):
    (tmp_path / "own.yaml").write_text("model: x\n")
    with pytest.raises(OpsError, match="outside the training folder"):
        JobSubmission(cloud, JobRequest(**files, recipe=str(tmp_path / "own.yaml")))


@pytest.mark.parametrize(("merge", "is_refused"), [("false", True), ("true", False)])
def test_a_recipe_without_a_merged_model_is_refused(
    cloud, files, tmp_path, monkeypatch, merge, is_refused
):
    monkeypatch.setattr(paths, "TRAINING", tmp_path)
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"model: x/y\nlora: {{}}\nmerge: {merge}\n")
    if not is_refused:
        JobSubmission(cloud, JobRequest(**files, recipe=str(recipe)))
        return
    with pytest.raises(OpsError, match=r"own.yaml has `merge: false`.* Remove `merge` from"):
        JobSubmission(cloud, JobRequest(**files, recipe=str(recipe)))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("report_to: [mlflow, wandb]", "has `report_to`, and a job logs to mlflow only"),
        ("push_to_hub: true", "has `push_to_hub`, and a job has no token of the hub"),
        ("mixture: {a.jsonl: 1, b.jsonl: 2}", "has `mixture`, and a job has one training file"),
    ],
)
def test_what_a_job_cannot_do_is_refused_before_it_starts(
    cloud, files, tmp_path, monkeypatch, line, problem
):
    monkeypatch.setattr(paths, "TRAINING", tmp_path)
    recipe = tmp_path / "own.yaml"
    recipe.write_text("model: x/y\nreport_to: [mlflow]\n")
    JobSubmission(cloud, JobRequest(**files, recipe=str(recipe)))
    recipe.write_text(f"model: x/y\n{line}\n")
    with pytest.raises(OpsError, match=problem):
        JobSubmission(cloud, JobRequest(**files, recipe=str(recipe)))


def test_a_model_of_this_machine_is_refused(cloud, files, tmp_path):
    for model in ("smollm2", "models/a.gguf", str(tmp_path)):
        with pytest.raises(OpsError, match="is on this machine only, .* train here with --local"):
            JobSubmission(cloud, request(files, model=model))


def test_every_training_file_counts(cloud, files):
    assert {path.name for path in _code_files()} >= {"train.py", "conda.yaml", "tiny-cpu.yaml"}
    assert all(path.is_relative_to(paths.TRAINING) for path in _code_files())


@pytest.mark.parametrize(
    ("size", "instances", "cpu", "expected"),
    [
        ("Standard_NC24ads_A100_v4", 1, False, None),
        ("Standard_NC24ads_A100_v4", 2, False, 1),
        ("standard_nd96isr_h100_v5", 1, False, 8),
        ("Standard_ND96isr_H100_v5", 2, False, 8),
        ("Standard_ND96isr_H100_v5", 1, True, None),
        ("Standard_Unheard_of", 2, False, 1),
    ],
)
def test_all_gpus_of_all_nodes_train_together(files, size, instances, cpu, expected):
    sizes = [
        {"name": "Standard_NC24ads_A100_v4", "vCPUs": 24, "gpus": 1},
        {"name": "Standard_ND96isr_H100_v5", "vCPUs": 96, "gpus": 8},
        {"name": "Standard_E16s_v3", "vCPUs": 16},
    ]
    ml = SimpleNamespace(jobs=operations(get=missing))
    clients = {"ml": ml, "rest_list": lambda path, api: sizes}
    cloud = offline_cloud(clients, compute={"size": size})
    made = JobSubmission(cloud, request(files, instances=instances, cpu=cpu)).job()
    assert made.resources.instance_count == instances
    if expected is None:
        assert made.distribution is None
    else:
        assert made.distribution.process_count_per_instance == expected
        assert made.distribution.type.lower() == "pytorch"


def test_the_next_attempt_resumes_from_the_checkpoints_of_the_same_content(cloud, files):
    first = f"phi3-{JobSubmission(cloud, request(files, cpu=True)).digest}"

    def get(name):
        return SimpleNamespace(status="Failed") if name == first else missing()

    vars(cloud)["ml"] = SimpleNamespace(jobs=operations(get=get))
    submission = JobSubmission(cloud, request(files, cpu=True))
    made = submission.job()
    assert made.name == f"{first}-2"
    assert "--checkpoint-dir ${{outputs.checkpoints}} --resume" in made.command
    assert made.outputs["checkpoints"].mode == "rw_mount"
    assert made.outputs["checkpoints"].path.endswith(f"/phi3-checkpoints/{submission.digest}/")


def test_the_arguments_of_train_py_are_those_that_were_given(files):
    assert request(files).train_arguments() == []
    given = request(files, model="x/y", rows=10, epochs=0.5)
    assert given.train_arguments() == ["--model", "x/y", "--rows", "10", "--epochs", "0.5"]


def test_the_plan_names_environment_and_job(files):
    ml = SimpleNamespace(environments=operations(get=missing), jobs=operations(get=missing))
    submission = JobSubmission(offline_cloud({"ml": ml}), request(files, rows=10, cpu=True))
    environment, job = submission.plan().steps
    assert environment.what.startswith(f"environment {submission.environment.name}:")
    assert job.what.startswith(
        f"job phi3-{submission.digest} (recipes/tiny-cpu.yaml, the first 10 rows"
    )
    assert job.what.endswith("on gpu-a100 x 1)")
    assert not environment.exists() and not job.exists()


def test_the_image_changes_the_version_of_the_environment(cloud, files):
    versions = {
        JobSubmission(cloud, request(files, cpu=cpu)).environment.version for cpu in (True, False)
    }
    assert len(versions) == 2


@pytest.mark.parametrize(
    ("status", "suffix", "exists"),
    [(None, "", False), ("Running", "", True), ("Failed", "-2", False)],
)
def test_the_name_is_that_of_the_newest_attempt(files, status, suffix, exists):
    jobs = {}
    get = operations(get=lambda name: jobs.get(name) or missing())
    submission = JobSubmission(offline_cloud({"ml": SimpleNamespace(jobs=get)}), request(files))
    first = f"phi3-{submission.digest}"
    if status:
        jobs[first] = SimpleNamespace(status=status)
    assert submission.exists() is exists
    assert submission.name == first + suffix


class TestLatestCompleted:
    def cloud(self, *jobs):
        listed = [
            SimpleNamespace(
                name=name,
                status=status,
                tags={} if name.endswith("catalog") else {"recipe": "recipes/lora.yaml"},
                creation_context=SimpleNamespace(created_at=created),
            )
            for name, status, created in jobs
        ]
        return offline_cloud({"ml": SimpleNamespace(jobs=operations(list=lambda: listed))})

    def test_the_newest_of_this_product(self):
        cloud = self.cloud(
            ("phi3-old", "Completed", 1),
            ("phi3-new", "Completed", 3),
            ("phi3-newer", "Failed", 4),
            ("another", "Completed", 5),
            ("phi3-middle", "Completed", 2),
            ("phi3-of-the-catalog", "Completed", 6),
        )
        assert latest_completed(cloud) == "phi3-new"

    def test_no_completed_job(self):
        with pytest.raises(OpsError, match="no fine-tuning job has completed yet. Run `phi3"):
            latest_completed(self.cloud(("phi3-a", "Running", 1), ("another", "Completed", 2)))


def test_a_missing_data_file_says_how_to_create_it(tmp_path):
    with pytest.raises(OpsError, match="none.jsonl does not exist. Create it with `phi3 data`"):
        require_file(tmp_path / "none.jsonl")
