"""A job's model as a deployment: its name, its definition, and the smoke test."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from echo_endpoint import KEY, echo_endpoint
from offline_cloud import missing, offline_cloud, operations
from phi3_ops import paths
from phi3_ops.deploy.model import CONTRACTS, SMOKE_QUESTION, ModelDeployment, scoring_url
from phi3_ops.errors import OpsError
from phi3_tools import KeyAuth

OUTPUTS = {"model_output": SimpleNamespace()}


def model_deployment(job="phi3-one", outputs=OUTPUTS, models=(), blobs=(), **endpoint):
    done = SimpleNamespace(name=job, status="Completed", outputs=outputs)
    registered = []
    ml = SimpleNamespace(
        jobs=operations(get=lambda name: done),
        models=operations(list=lambda name: models, create_or_update=registered.append),
    )
    cloud = offline_cloud({"ml": ml}, endpoint=endpoint)
    cloud.has_blob = lambda name: name in blobs
    deployment = ModelDeployment(cloud, job)
    deployment.registered = registered
    return deployment


@pytest.mark.parametrize("variant", CONTRACTS)
def test_the_path_of_the_container(variant):
    url = scoring_url("https://e.eastus2.inference.ml.azure.com/score", variant)
    path = "/v1/chat/completions" if variant == "vllm" else "/score"
    assert url == f"https://e.eastus2.inference.ml.azure.com{path}"


def test_a_job_that_does_not_exist():
    cloud = offline_cloud({"ml": SimpleNamespace(jobs=operations(get=missing))})
    with pytest.raises(OpsError, match="the job nothing does not exist"):
        ModelDeployment(cloud, "nothing")


def test_the_newest_completed_job_is_the_default():
    jobs = [
        SimpleNamespace(
            name=name,
            status=status,
            tags=tags,
            creation_context=SimpleNamespace(created_at=created),
        )
        for name, status, created, tags in (
            ("phi3-one", "Completed", 1, {"recipe": "r"}),
            ("phi3-two", "Completed", 3, {"recipe": "r"}),
            ("phi3-three", "Failed", 4, {"recipe": "r"}),
            ("other", "Completed", 5, {"recipe": "r"}),
            ("phi3-of-the-catalog", "Completed", 6, {}),
        )
    ]
    get = lambda name: next(job for job in jobs if job.name == name)  # noqa: E731
    ml = SimpleNamespace(jobs=operations(get=get, list=lambda: [None, *jobs]))
    assert ModelDeployment(offline_cloud({"ml": ml})).job == "phi3-two"


class TestName:
    def test_the_same_content_has_the_same_name(self):
        assert model_deployment().name == model_deployment().name

    @pytest.mark.parametrize(
        "changes",
        [
            {"job": "phi3-two"},
            {"size": "Standard_X"},
            {"instances": 2},
            {"variant": "mlflow"},
            {"max_model_len": 8192},
        ],
    )
    def test_other_content_has_another_name(self, changes):
        assert model_deployment().name != model_deployment(**changes).name

    @pytest.mark.parametrize(("variant", "counts"), [("score", True), ("mlflow", False)])
    def test_the_scoring_script_counts_for_its_variant(
        self, monkeypatch, tmp_path, variant, counts
    ):
        before = model_deployment(variant=variant).name
        shutil.copytree(paths.SERVING, tmp_path / "serving")
        monkeypatch.setattr(paths, "SERVING", tmp_path / "serving")
        with (tmp_path / "serving" / "score.py").open("a") as file:
            file.write("# changed\n")
        assert (model_deployment(variant=variant).name != before) is counts


class TestModel:
    BLOB = "azureml/phi3-one/model_output/mlflow/MLmodel"

    def test_it_is_registered_from_the_jobs_output(self):
        deployment = model_deployment(blobs=[self.BLOB])
        (step,) = deployment.steps()
        assert step.what == "model phi3-finetuned from phi3-one" and not step.exists()
        step.apply()
        (model,) = deployment.registered
        assert model.path.endswith("jobs/phi3-one/outputs/model_output/paths/mlflow")
        assert model.tags["job"] == "phi3-one"

    def test_it_exists_if_a_version_comes_from_the_job(self):
        models = [SimpleNamespace(tags=tags) for tags in (None, {"job": "phi3-two"})]
        assert not model_deployment(models=models).steps()[0].exists()
        models.append(SimpleNamespace(tags={"job": "phi3-one"}))
        assert model_deployment(models=models).steps()[0].exists()

    @pytest.mark.parametrize(("outputs", "blobs"), [({}, [BLOB]), (None, [BLOB]), (OUTPUTS, [])])
    def test_a_job_without_a_model_is_refused(self, outputs, blobs):
        deployment = model_deployment(outputs=outputs, blobs=blobs)
        with pytest.raises(OpsError, match="the job phi3-one has no MLflow model in its output"):
            deployment.steps()[0].apply()
        assert deployment.registered == []


def test_the_definition_names_the_newest_version():
    tags = {"job": "phi3-one"}
    models = [SimpleNamespace(name="m", version=version, tags=tags) for version in ("9", "10")]
    deployment = model_deployment(models=models, size="Standard_X", instances=3)
    with deployment.definition() as definition:
        assert definition.model == "azureml:m:10"
        assert definition.name == deployment.name
        assert definition.endpoint_name == "phi3-endpoint"
        assert (definition.instance_type, definition.instance_count) == ("Standard_X", 3)
        assert definition.tags["job"] == "phi3-one"


class TestMachines:
    """What depends on whether the size has a GPU."""

    def definition(self, **endpoint):
        models = [SimpleNamespace(name="m", version="1", tags={"job": "phi3-one"})]
        with model_deployment(models=models, **endpoint).definition() as definition:
            return definition

    def test_vllm_serves_on_a_gpu(self):
        definition = self.definition(max_model_len=8192)
        assert definition.environment.build.path == "vllm"
        assert definition.environment_variables["MAX_MODEL_LEN"] == "8192"

    def test_the_scoring_script_serves_on_a_cpu(self):
        definition = self.definition(size="Standard_DS3_v2")
        assert definition.environment.image.endswith("/openmpi5.0-ubuntu24.04:latest")
        variables = definition.environment_variables
        assert (variables["PHI3_ENGINE"], variables["PHI3_EXPECT_GPU"]) == ("auto", "false")

    def test_the_scoring_script_on_a_gpu_if_it_is_asked_for(self):
        definition = self.definition(variant="score")
        assert "cuda12.8" in definition.environment.image
        variables = definition.environment_variables
        assert (variables["PHI3_ENGINE"], variables["PHI3_EXPECT_GPU"]) == ("transformers", "true")

    @pytest.mark.parametrize(("instances", "first"), [(1, 2), (3, 3), (9, 4)])
    def test_a_new_deployment_starts_within_the_limits(self, instances, first):
        limits = {"min": 2, "max": 4}
        assert self.definition(instances=instances, autoscale=limits).instance_count == first


class TestAsk:
    def test_the_answer(self):
        with echo_endpoint() as server:
            answer = model_deployment(variant="score").ask(server.url, KeyAuth(KEY), None)
        assert answer.text == SMOKE_QUESTION
        assert answer.latency_s > 0
        (body,) = server.requests
        assert body["input_data"]["parameters"]["max_new_tokens"] == 32

    @pytest.mark.parametrize(("name", "target"), [("blue", "blue"), (None, "the endpoint")])
    def test_a_refusal_names_the_deployment(self, name, target):
        with (
            echo_endpoint() as server,
            pytest.raises(OpsError, match=f"the smoke test of {target} failed: .*key"),
        ):
            model_deployment(variant="score").ask(server.url, KeyAuth("wrong"), name)
