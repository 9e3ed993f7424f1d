"""The catalog's job: models, settings, identity."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from offline_cloud import missing, offline_cloud, operations
from phi3_ops.errors import OpsError
from phi3_ops.training.catalog import (
    CatalogRequest,
    CatalogSubmission,
    catalog_settings,
    check_catalog_model,
)


@pytest.fixture
def files(tmp_path):
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(f"{name}\n")
    return tmp_path / "train.jsonl", tmp_path / "test.jsonl"


@pytest.mark.parametrize(
    "name", ["Phi-3-mini-4k-instruct", "Phi-3.5-mini-instruct", "phi-3-medium"]
)
def test_a_retired_model_is_refused(name):
    with pytest.raises(OpsError, match="no longer fine-tunes.*Leave out --catalog"):
        check_catalog_model(name)


def test_a_model_of_this_machine_is_refused(files):
    with pytest.raises(OpsError, match="the model smollm2 is on this machine only"):
        CatalogSubmission(offline_cloud(), CatalogRequest(*files, model="smollm2"))


def test_another_model_is_accepted():
    check_catalog_model("Phi-4-mini-instruct")


@pytest.mark.parametrize("word", ["learning_rate", "nonsense=1"])
def test_a_wrong_setting_is_named(word):
    with pytest.raises(OpsError, match=word):
        catalog_settings([word])


def test_settings_are_text():
    words = ["learning_rate=2e-5", "num_train_epochs=3"]
    assert catalog_settings(words) == {"learning_rate": "2e-5", "num_train_epochs": "3"}


def submission(files, **changes):
    ml = SimpleNamespace(jobs=operations(get=missing))
    models = operations(get=find_model)
    clients = {"ml": ml, "catalog": SimpleNamespace(models=models)}
    return CatalogSubmission(offline_cloud(clients), CatalogRequest(*files, **changes))


def find_model(name, label):
    """Stand for the model catalog, which has one model."""
    assert label == "latest"
    return SimpleNamespace(version="2") if name == "Phi-4-mini-instruct" else missing()


def test_the_same_content_is_the_same_job(files):
    assert submission(files).digest == submission(files).digest


@pytest.mark.parametrize("changes", [{"model": "other"}, {"settings": {"learning_rate": "1"}}])
def test_other_content_is_another_job(files, changes):
    assert submission(files, **changes).digest != submission(files).digest


def test_other_data_is_another_job(files):
    before = submission(files).digest
    files[1].write_text("more\n")
    assert submission(files).digest != before


def test_a_missing_file_is_named(files):
    with pytest.raises(OpsError, match="none.jsonl does not exist"):
        submission((files[0], files[1].with_name("none.jsonl")))


def test_a_retired_model_is_refused_before_any_request(files):
    with pytest.raises(OpsError, match="no longer fine-tunes"):
        submission(files, model="Phi-3-mini-4k-instruct")


def test_the_plan_has_the_job_alone(files):
    (step,) = submission(files).plan().steps
    assert step.what.endswith("(the catalog's fine-tuning of Phi-4-mini-instruct:2)")
    assert step.verb == "submit" and not step.exists()


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (
            "Phi-4-mini-instruct",
            "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/2",
        ),
        (
            "azureml://registries/x/models/y/versions/1",
            "azureml://registries/x/models/y/versions/1",
        ),
    ],
)
def test_the_model_is_a_catalog_name_or_a_path(files, model, path):
    job = submission(files, model=model, settings={"learning_rate": "2e-5"}).job()
    assert job.model.path == path
    assert job.name.startswith("phi3-")
    assert dict(job.hyperparameters) == {"learning_rate": "2e-5"}


def test_a_model_that_the_catalog_does_not_have(files):
    with pytest.raises(
        OpsError, match="the model catalog has no model Phi-9. Give the name of a model"
    ):
        submission(files, model="Phi-9").plan()
