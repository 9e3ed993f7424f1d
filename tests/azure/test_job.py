"""What identifies a job, and what is refused before Azure is asked anything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from phi3_ops import paths
from phi3_ops.azure.cloud import Cloud
from phi3_ops.azure.config import Config
from phi3_ops.errors import OpsError
from phi3_ops.training.catalog import catalog_settings, check_catalog_model
from phi3_ops.training.job import JobRequest, JobSubmission, _code_files


@pytest.fixture
def cloud():
    where = {
        "subscription_id": "00000000-0000-0000-0000-000000000001",
        "resource_group": "rg",
        "workspace": "work",
    }
    return Cloud(Config.model_validate({"azure": where}), credential=object())


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


def test_a_recipe_that_would_not_be_uploaded_is_refused(cloud, files, tmp_path):
    (tmp_path / "own.yaml").write_text("model: x\n")
    own = JobRequest(**files, recipe=str(tmp_path / "own.yaml"))
    with pytest.raises(OpsError, match="outside the training folder"):
        JobSubmission(cloud, own)


@pytest.mark.parametrize(
    "name", ["Phi-3-mini-4k-instruct", "Phi-3.5-mini-instruct", "phi-3-medium"]
)
def test_the_catalog_refuses_what_is_retired(name):
    with pytest.raises(OpsError, match="no longer fine-tunes.*Leave out --catalog"):
        check_catalog_model(name)


def test_the_catalog_takes_what_is_not():
    check_catalog_model("Phi-4-mini-instruct")


@pytest.mark.parametrize("word", ["learning_rate", "nonsense=1"])
def test_a_wrong_setting_is_named(word):
    with pytest.raises(OpsError, match=word):
        catalog_settings([word])


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
def test_all_gpus_of_all_nodes_train_together(cloud, files, size, instances, cpu, expected):
    sizes = [
        SimpleNamespace(name="Standard_NC24ads_A100_v4", gpus=1),
        SimpleNamespace(name="Standard_ND96isr_H100_v5", gpus=8),
        SimpleNamespace(name="Standard_E16s_v3", gpus=None),
    ]
    nothing = SimpleNamespace(get=lambda *_, **__: None)
    cloud.__dict__["ml"] = SimpleNamespace(
        compute=SimpleNamespace(list_sizes=lambda location: sizes), jobs=nothing
    )
    compute = cloud.config.compute.model_copy(update={"size": size})
    cloud.config = cloud.config.model_copy(update={"compute": compute})
    submission = JobSubmission(cloud, request(files, instances=instances, cpu=cpu))
    submission._name = "phi3-x"
    made = submission.job()
    assert made.resources.instance_count == instances
    if expected is None:
        assert made.distribution is None
    else:
        assert made.distribution.process_count_per_instance == expected
        assert made.distribution.type.lower() == "pytorch"


def test_a_job_goes_on_from_the_checkpoints_of_the_same_content(cloud, files):
    submission = JobSubmission(cloud, request(files, cpu=True))
    submission._name = f"phi3-{submission.digest}-2"  # the one before it failed
    made = submission.job()
    assert "--checkpoint-dir ${{outputs.checkpoints}} --resume" in made.command
    assert made.outputs["checkpoints"].mode == "rw_mount"
    assert made.outputs["checkpoints"].path.endswith(f"/phi3-checkpoints/{submission.digest}/")
