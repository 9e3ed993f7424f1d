"""`phi3 finetune`, `deploy` and `connect` with the real clients: what they send, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from azure_fixtures import one_line, plant
from phi3_ops import paths
from phi3_ops.deploy import keys as keys_module
from phi3_ops.pf.connections import NO_KEY, connection_key

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "azure"
NAME = "phi3-endpoint"
DEPLOYMENT = f"/{NAME}/deployments/d-"
# The writes of a first deployment that a later one does not repeat, in its order (model: 1).
FIRST = {"endpoint": 2, "traffic": 7}
# The writes of a deployment beside a live one, in order.
AGAIN = (
    "model",
    "code-upload",
    "code",
    "environment",
    "deployment",
    "traffic-10",
    "traffic-100",
    "removal",
)
CANARY = ("--canary", "10,100")


def done_well(done):
    assert done.code == 0, done.err
    return done.out


class TestRequests:
    """What is sent, word for word. PHI3_WRITE_GOLDEN=1 writes it anew."""

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
        serving.azure.fail_job()  # which is not what this is about
        done_well(phi3("finetune", *files, *words))
        _compare(name, _sent(serving, "/jobs/"))
        if "--catalog" not in words:
            _compare("code", _sent(serving, "/codes/"))

    @pytest.mark.parametrize(("name", "words"), [("gpu", ()), ("cpu", ("--cpu",))])
    def test_the_jobs_environment(self, serving, phi3, files, name, words):
        serving.azure.fail_job()
        done_well(phi3("finetune", *files, *words))
        sent = _sent(serving, "/environments/")
        conda = yaml.safe_load(sent.body["properties"]["condaFile"])
        assert conda == yaml.safe_load((paths.TRAINING / "conda.yaml").read_text())
        _compare(f"environment-{name}", sent)

    @pytest.mark.parametrize("auth", ["key", "entra"])
    def test_an_endpoint_and_its_connection(self, serving, phi3, tmp_path, auth):
        (tmp_path / "phi3.yaml").write_text(f"endpoint: {{auth: {auth}}}")
        done_well(serving.deploy("one"))
        _compare(f"endpoint-{auth}", _sent(serving, NAME, 0))
        done_well(phi3("connect", "--azure"))
        _compare(f"connection-{auth}", _sent(serving, "/connections/"))
        assert "nothing to change" in done_well(phi3("connect", "--azure"))
        assert connection_key("phi3") == (NO_KEY if auth == "entra" else serving.keys[0])

    @pytest.mark.parametrize("variant", ["score", "mlflow", "vllm"])
    def test_a_deployment(self, serving, tmp_path, variant):
        (tmp_path / "phi3.yaml").write_text(f"endpoint: {{variant: {variant}, instances: 2}}")
        serving.azure.fail_deployment()
        serving.deploy("one")
        _compare(f"deployment-{variant}", _sent(serving, "/deployments/"))

    def test_a_model_and_the_traffic(self, serving):
        serving.live()
        done_well(serving.deploy("new", "--mirror", 20, *CANARY))
        _compare("deployment-model", _sent(serving, "/models/"))
        for count, name in enumerate(["mirror", "canary", "whole"]):
            _compare(f"endpoint-{name}", _sent(serving, NAME, count))


class TestFineTune:
    @pytest.fixture
    def finetune(self, serving, phi3, tmp_path):
        (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
        words = ("--train-file", tmp_path / "rows.jsonl", "--eval-file", tmp_path / "rows.jsonl")
        return lambda *more: phi3("finetune", *words, *more)

    @pytest.mark.parametrize("count", range(1, 5), ids=["environment", "upload", "code", "job"])
    def test_killed_after_any_write_the_next_run_completes(
        self, serving, finetune, kill_after, queued_jobs, count
    ):
        kill_after(count)
        assert finetune().code == 1
        assert len(serving.azure.writes()) == count
        kill_after(0)
        done_well(finetune())
        assert "nothing to change" in done_well(finetune())
        for kind in ("jobs", "environments/versions"):
            assert len(serving.of(kind)) == 1, kind

    def test_a_job_that_fails_is_told_and_submitted_anew(self, serving, finetune):
        serving.azure.fail_job(message="The node was preempted.")
        one_line(finetune("--follow"), "the job phi3-", "failed", "az ml job stream")
        serving.azure.fail_job()
        assert re.search(r"job phi3-\w{12}-2\n", done_well(finetune()))
        assert len(serving.of("jobs")) == 2

    def test_ctrl_c_while_following_leaves_the_job_alone(
        self, serving, finetune, queued_jobs, monkeypatch
    ):
        from azure.ai.ml.operations import _job_ops_helper

        def interrupt(seconds):
            raise KeyboardInterrupt

        waits = SimpleNamespace(time=time.time, sleep=interrupt)
        monkeypatch.setattr(_job_ops_helper, "time", waits)
        done = finetune("--follow")
        assert (done.code, done.err.splitlines()[-1]) == (130, "phi3: interrupted")
        assert len(serving.of("jobs")) == 1

    def test_403_is_one_line_and_the_next_run_goes_on(self, serving, finetune):
        serving.azure.fail("PUT", "/jobs/", 403, code="AuthorizationFailed", message="You may not.")
        one_line(finetune(), "submit job phi3-", "You may not.", "Ask the subscription's owner")
        serving.azure.fail_job()
        done_well(finetune())
        assert len(serving.of("jobs")) == 1


class TestInterrupted:
    def complete(self, serving, name):
        """A run without a fault; what is there after it, once each."""
        done_well(serving.deploy(name, *CANARY))
        assert list(serving.deployments.values()) == [name]
        assert serving.traffic == {name: 100}
        assert serving.models == [name]

    @pytest.mark.parametrize("count", FIRST.values(), ids=FIRST)
    def test_the_first_deployment(self, serving, kill_after, count):
        kill_after(count)
        assert serving.deploy("one").code == 1
        kill_after(0)
        self.complete(serving, "one")

    @pytest.mark.parametrize("count", range(1, len(AGAIN) + 1), ids=AGAIN)
    def test_a_deployment_beside_a_live_one(self, serving, kill_after, count):
        serving.live()
        kill_after(count)
        assert serving.deploy("new", *CANARY).code == 1
        assert len(serving.azure.writes()) == count
        kill_after(0)
        self.complete(serving, "new")
        for body in serving.puts:  # at no time was the endpoint without a deployment
            assert sum(body["properties"]["traffic"].values()) == 100


class TestWhatPasses:
    @pytest.mark.parametrize("status", [429, 503])
    def test_is_tried_again(self, serving, status):
        serving.azure.fail("PUT", DEPLOYMENT, status, 2, headers={"Retry-After": "0"})
        done_well(serving.deploy("one"))
        sent = [each for each in serving.azure.writes() if DEPLOYMENT in each.path]
        assert len(sent) == 3
        assert serving.traffic == {"one": 100}

    @pytest.mark.parametrize("status", [0, 503])
    def test_a_lost_poll_is_polled_again(self, serving, status):
        serving.azure.fail("GET", "OperationsStatus/", status, after=1)
        done_well(serving.deploy("one"))
        assert serving.traffic == {"one": 100}
        assert len(serving.deployments) == 1


class TestRefusals:
    def test_a_name_that_is_taken(self, serving):
        elsewhere = "/providers/Microsoft.MachineLearningServices/workspaces/other"
        plant(serving.azure, f"{elsewhere}/onlineEndpoints/{NAME}", {"properties": {}})
        told = ("deploy: create endpoint phi3-endpoint: Conflict", "is taken", "another name")
        one_line(serving.deploy("one"), *told)
        assert serving.deployments == {}

    @pytest.mark.parametrize(
        ("path", "step"),
        [
            ("/models/", "create model phi3-finetuned"),
            (NAME, "create endpoint"),
            (DEPLOYMENT, "create deployment d-"),
        ],
    )
    def test_403_is_one_line_and_the_next_run_goes_on(self, serving, path, step):
        serving.azure.fail("PUT", path, 403, code="AuthorizationFailed", message="You may not.")
        one_line(serving.deploy("one"), step, "You may not.", "Ask the subscription's owner")
        done_well(serving.deploy("one"))
        assert (serving.traffic, serving.models) == ({"one": 100}, ["one"])

    def test_quota_that_is_short(self, serving):
        serving.azure.quota("standardNCADSA100v4Family", 24, 20)
        one_line(serving.deploy("one"), "create deployment d-", "OutOfQuota", "4 left")
        assert (serving.deployments, serving.traffic) == ({}, {})

    def test_a_job_whose_output_holds_no_model(self, serving):
        serving.job("hollow", model=False)
        one_line(serving.deploy("hollow"), "the job hollow has no MLflow model")

    def test_a_job_without_the_output(self, serving):
        serving.job("bare", outputs={})
        one_line(serving.deploy("bare"), "the job bare has no MLflow model")
        assert serving.azure.writes() == []

    @pytest.mark.parametrize("status", ["Running", "Failed"])
    def test_a_job_that_has_not_completed(self, serving, status):
        serving.job("slow", status)
        one_line(serving.deploy("slow"), f"the job slow is {status}, not Completed")
        assert serving.azure.writes() == []

    def test_a_job_that_is_not_there(self, phi3, serving):
        one_line(phi3("deploy", "--job", "nothing"), "the job nothing does not exist. Submit one")

    def test_403_where_the_jobs_are_listed(self, phi3, serving):
        serving.azure.fail("GET", "/jobs", 403)
        one_line(phi3("deploy"), "deploy: listing the jobs: ", "Ask the subscription's owner")

    def test_no_job_at_all(self, serving, phi3):
        serving.job("phi3-running", "Running")
        serving.job("somebodys")
        one_line(phi3("deploy"), "no fine-tuning job has completed yet. Run `phi3 finetune")

    def test_of_several_the_newest(self, serving, phi3):
        for name in ("phi3-one", "phi3-two", "other"):
            serving.job(name)
        serving.job("phi3-three", "Failed")
        assert "from phi3-two" in done_well(phi3("deploy", "--dry-run"))

    @pytest.mark.parametrize(
        "model",
        ["Phi-3-mini-4k-instruct", "azureml://registries/azureml/models/Phi-3.5-x/versions/1"],
    )
    def test_the_catalog_and_a_retired_model(self, serving, phi3, model):
        one_line(phi3("finetune", "--catalog", "--model", model), "no longer fine-tunes")
        assert serving.azure.requests == []


class TestTraffic:
    """Beside a live deployment, whose traffic comes back whatever happens."""

    @pytest.fixture
    def live(self, serving):
        serving.live()
        return serving

    def test_a_deployment_that_fails_is_removed_and_its_log_shown(self, live):
        live.azure.fail_deployment(DEPLOYMENT, "no GPU was found")
        done = live.deploy("new")
        one_line(done, "create deployment d-", "ResourceNotReady")
        assert "  | no GPU was found" in done.out
        assert (live.traffic, live.deployments) == ({"old": 100}, {"d-old": "old"})
        assert live.puts == []

    def test_an_endpoint_that_fails_to_change_gets_its_traffic_back(self, live):
        live.azure.fail("PUT", NAME, 403, after=1)  # after the deployment's
        one_line(live.deploy("new"), "move traffic to d-", "AuthorizationFailed")
        assert (live.traffic, len(live.puts)) == ({"old": 100}, 1)
        live.azure.fail_operation(NAME, "InternalError", "The change failed.")
        one_line(live.deploy("new"), "move traffic to d-", "The change failed.")
        assert (live.traffic, len(live.puts)) == ({"old": 100}, 3)

    def test_traffic_that_cannot_be_put_back_is_said_and_the_next_run_goes_on(self, live):
        live.azure.fail("POST", "/score", 401, after=1)
        live.azure.fail("PUT", NAME, 403, after=2)  # after the deployment's and that of 10 %
        done = live.deploy("new")
        one_line(done, "the smoke test of")
        assert "the traffic could not be put back" in done.out
        assert live.traffic == {"old": 90, "new": 10}
        done_well(live.deploy("new"))
        assert (live.traffic, list(live.deployments.values())) == ({"new": 100}, ["new"])

    def test_an_endpoint_whose_last_change_failed_keeps_its_traffic(self, live):
        (endpoint,) = live.of("onlineEndpoints")
        endpoint["properties"]["provisioningState"] = "Failed"
        done_well(live.deploy("new", *CANARY))
        assert live.traffic == {"new": 100}
        assert [sum(body["properties"]["traffic"].values()) for body in live.puts] == [100] * 3

    @pytest.mark.parametrize("passed", [0, 1, 3], ids=["0 %", "10 %", "100 %"])
    def test_a_smoke_test_that_fails(self, live, passed):
        live.azure.fail("POST", "/score", 401, None, after=passed)
        one_line(live.deploy("new"), "the smoke test of")
        assert live.traffic == {"old": 100}
        assert len(live.puts) == (passed + 1 if passed else 0)
        assert sorted(live.deployments.values()) == ["new", "old"]

    def test_a_first_deployment_that_does_not_answer_gets_no_traffic(self, serving):
        serving.azure.fail("POST", "/score", 401, None, after=1)
        one_line(serving.deploy("one"), "the smoke test of the endpoint failed")
        assert serving.traffic == {}

    def test_a_mirror_comes_before_the_traffic_and_ends_with_it(self, live):
        done_well(live.deploy("new", "--mirror", 20, *CANARY))
        (new,) = live.deployments
        sent = [each["properties"] for each in live.puts]
        assert [each["mirrorTraffic"] for each in sent] == [{new: 20}, {}, {}]
        assert [each["traffic"].get(new, 0) for each in sent] == [0, 10, 100]

    def test_the_old_one_may_stay(self, live):
        done_well(live.deploy("new", "--keep-old"))
        assert sorted(live.deployments.values()) == ["new", "old"]
        assert live.traffic == {"new": 100}
        assert "removed old deployments: d-old" in done_well(live.deploy("new"))
        assert list(live.deployments.values()) == ["new"]

    def test_a_live_deployment_that_cannot_be_changed_says_why(self, live):
        """Its own error, and not that a deployment with traffic cannot be deleted."""
        done_well(live.deploy("new"))
        (deployment,) = live.of("onlineEndpoints/deployments")
        deployment["properties"]["provisioningState"] = "Failed"
        live.azure.fail("PUT", DEPLOYMENT, 400, code="OutOfCapacity", message="There is no more.")
        one_line(live.deploy("new"), "create deployment d-", "There is no more.")
        assert live.traffic == {"new": 100}


class TestRotate:
    @pytest.fixture
    def connected(self, serving, phi3, monkeypatch):
        """Both connections hold the primary key."""
        monkeypatch.setattr(keys_module, "KEY_POLL_S", 0.0)
        done_well(serving.deploy("one"))
        done_well(phi3("connect", "--azure"))
        return serving

    def rotate(self, connected):
        return connected.phi3("connect", "--azure", "--rotate")

    def held(self, connected):
        """The keys of the local and of the workspace's connection."""
        (shared,) = connected.of("connections")
        return connection_key("phi3"), shared["properties"]["credentials"]["keys"]["key"]

    def test_a_key_that_is_accepted_late(self, connected):
        before = connected.keys
        connected.azure.fail("POST", "/score", 401, 2)
        assert "the secondary key" in done_well(self.rotate(connected))
        assert not set(before) & set(connected.keys)
        assert self.held(connected) == (connected.keys[1], connected.keys[1])
        assert "nothing to change" in done_well(connected.phi3("connect", "--azure"))
        assert "the primary key" in done_well(self.rotate(connected))
        assert self.held(connected) == (connected.keys[0], connected.keys[0])

    def test_a_key_that_is_never_accepted(self, connected, monkeypatch):
        monkeypatch.setattr(keys_module, "KEY_READY_S", 0.0)
        primary = connected.keys[0]
        connected.azure.fail("POST", "/score", 401, None)
        one_line(self.rotate(connected), "the endpoint does not accept the new key. The old key still works")
        assert connected.keys[0] == primary
        assert self.held(connected) == (primary, primary)
        assert "nothing to change" in done_well(connected.phi3("connect", "--azure"))

    def test_what_was_cut_between_the_connections_is_completed(self, connected):
        primary = connected.keys[0]
        connected.azure.fail("PUT", "/connections/", 403, code="AuthorizationFailed")
        one_line(self.rotate(connected), "connect: AuthorizationFailed")
        assert connected.keys[0] == primary  # which the workspace's connection still holds
        assert self.held(connected) == (connected.keys[1], primary)
        done_well(connected.phi3("connect", "--azure"))
        assert self.held(connected) == (connected.keys[1], connected.keys[1])

    # Of the two keys, the one that is not in use is made new, then the connection, then the other key.
    @pytest.mark.parametrize("count", [1, 2, 3], ids=["new-key", "connection", "old-key"])
    def test_killed_after_any_write_the_next_run_completes(self, connected, kill_after, count):
        refused = []
        kill_after(count, lambda _: refused.append(connection_key("phi3") not in connected.keys))
        before = len(connected.azure.writes())
        assert self.rotate(connected).code == 1
        assert len(connected.azure.writes()) == before + count
        assert self.held(connected)[0] in connected.keys
        assert self.held(connected)[1] in connected.keys
        kill_after(0, lambda _: refused.append(connection_key("phi3") not in connected.keys))
        done_well(self.rotate(connected))
        assert set(self.held(connected)) <= set(connected.keys)
        assert len(refused) == len(connected.azure.writes()) - before and not any(refused)
        assert "nothing to change" in done_well(connected.phi3("connect", "--azure"))

    def test_connections_with_a_key_each_are_brought_together_first(self, connected):
        """As a run leaves them that was cut between the two, or one on another machine."""
        (shared,) = connected.of("connections")
        shared["properties"]["credentials"]["keys"]["key"] = connected.keys[1]
        seen = []
        connected.azure.on_write(lambda _: seen.append(set(self.held(connected))))
        done_well(self.rotate(connected))
        connected.azure.on_write(None)
        assert [len(keys) for keys in seen[:2]] == [1, 1]

    def test_an_endpoint_without_keys(self, serving, phi3, tmp_path):
        (tmp_path / "phi3.yaml").write_text("endpoint: {auth: entra}")
        one_line(phi3("connect", "--azure", "--rotate"), "does not use keys")
        assert serving.azure.requests == []


def _sent(serving, path, count=-1):
    """One of the PUTs on such a path."""
    found = [
        each
        for each in serving.azure.writes()
        if re.search(f"{path}[^/]*(/versions/[^/]+)?$", each.path)
    ]
    return [each for each in found if each.method == "PUT"][count]


def _compare(name, request):
    file, shown = GOLDEN / f"{name}.json", _shown(request)
    if os.environ.get("PHI3_WRITE_GOLDEN"):
        file.write_text(json.dumps(shown, indent=2) + "\n")
    assert shown == json.loads(file.read_text()), name


# What the content, chance and the date put in: a pattern, and what is shown in its place.
VOLATILE = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+(\+0000|\+00:00|Z)?", "<time>"),
    (r"\d{4}-\d\d-\d\d(?=\")", "<date>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=/)", "<uuid>"),
    (r"\bphi3-[0-9a-f]{12}\b", "phi3-<hash>"),
    (r"\bd-[0-9a-f]{10}\b", "d-<hash>"),
    (r"\b([0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{12})\b", "<hash>"),
    (r'(?<="condaFile": ")([^"\\]|\\.)*', "<conda.yaml>"),
    (r'(?<="key": ")[\w-]{32}(?=")', "<key>"),
)


def _shown(request):
    """A request without what is another one each time."""
    subscription = "11111111-1111-4111-8111-111111111111"
    text = json.dumps({"method": request.method, "path": request.path, "body": request.body})
    text = text.replace(subscription, "<subscription>")
    for pattern, shown in VOLATILE:
        text = re.sub(pattern, shown, text)
    return json.loads(text)
