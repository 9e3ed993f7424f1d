"""The requests of `phi3 finetune`, `deploy` and `connect`, compared with golden files."""

from __future__ import annotations

import re

import pytest
import yaml

from azure_fixtures import succeed
from golden_requests import compare
from phi3_ops import paths
from phi3_ops.pf.connections import NO_KEY, connection_key

NAME = "phi3-endpoint"
CANARY = ("--canary", "10,100")


class TestRequests:
    """The requests are those of the golden files; PHI3_WRITE_GOLDEN=1 writes the files."""

    @pytest.fixture
    def files(self, tmp_path):
        for name in ("train.jsonl", "test.jsonl"):
            (tmp_path / name).write_text('{"messages": []}\n')
        return "--train-file", tmp_path / "train.jsonl", "--eval-file", tmp_path / "test.jsonl"

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("job-gpu", ()),
            ("job-minimal", ("--instances", 2, "--cpu", "--rows", 10)),
            ("catalog-job", ("--catalog", "--set", "learning_rate=2e-5")),
        ],
    )
    def test_a_job(self, serving, phi3, files, name, words):
        serving.azure.fail_job()  # the job itself does not matter here
        succeed(phi3("finetune", *files, *words))
        compare(name, _sent(serving, "/jobs/"))
        if "--catalog" not in words:
            compare("code", _sent(serving, "/codes/"))

    @pytest.mark.parametrize(("name", "words"), [("gpu", ()), ("cpu", ("--cpu",))])
    def test_the_environment_of_a_job(self, serving, phi3, files, name, words):
        serving.azure.fail_job()
        succeed(phi3("finetune", *files, *words))
        sent = _sent(serving, "/environments/")
        conda = yaml.safe_load(sent.body["properties"]["condaFile"])
        assert conda == yaml.safe_load((paths.TRAINING / "conda.yaml").read_text())
        compare(f"environment-{name}", sent)

    @pytest.mark.parametrize("auth", ["key", "entra"])
    def test_an_endpoint_and_its_connection(self, serving, phi3, tmp_path, auth):
        (tmp_path / "phi3.yaml").write_text(f"endpoint: {{auth: {auth}, variant: score}}")
        succeed(serving.deploy("one"))
        compare(f"endpoint-{auth}", _sent(serving, NAME, 0))
        succeed(phi3("connect", "--azure"))
        compare(f"connection-{auth}", _sent(serving, "/connections/"))
        assert "nothing to change" in succeed(phi3("connect", "--azure"))
        assert connection_key("phi3") == (NO_KEY if auth == "entra" else serving.keys[0])

    @pytest.mark.parametrize("variant", ["score", "mlflow", "vllm"])
    def test_a_deployment(self, serving, tmp_path, variant):
        (tmp_path / "phi3.yaml").write_text(f"endpoint: {{variant: {variant}, instances: 2}}")
        serving.azure.fail_deployment()
        serving.deploy("one")
        compare(f"deployment-{variant}", _sent(serving, "/deployments/"))

    def test_a_model_and_the_traffic(self, serving):
        serving.live()
        succeed(serving.deploy("new", "--mirror", 20, *CANARY))
        compare("deployment-model", _sent(serving, "/models/"))
        for count, name in enumerate(["mirror", "canary", "whole"]):
            compare(f"endpoint-{name}", _sent(serving, NAME, count))


def _sent(serving, path, count=-1):
    """Return one of the PUTs on a path."""
    pattern = re.compile(f"{path}[^/]*(/versions/[^/]+)?$")
    writes = serving.azure.writes()
    return [w for w in writes if w.method == "PUT" and pattern.search(w.path)][count]
