"""`phi3 deploy` with the real clients: interrupted runs, refusals, and failures of a rollout."""

from __future__ import annotations

import pytest

from azure_fixtures import one_line, plant, succeed

NAME = "phi3-endpoint"
DEPLOYMENT = f"/{NAME}/deployments/d-"
# The writes that only a first deployment has, with their positions (the model's is 1).
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


class TestInterrupted:
    def complete(self, serving, name):
        """Run without a fault, and check that everything exists exactly once."""
        succeed(serving.deploy(name, *CANARY))
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


class TestTransientErrors:
    @pytest.mark.parametrize("status", [429, 503])
    def test_a_request_is_retried(self, serving, status):
        serving.azure.fail("PUT", DEPLOYMENT, status, 2, headers={"Retry-After": "0"})
        succeed(serving.deploy("one"))
        sent = [write for write in serving.azure.writes() if DEPLOYMENT in write.path]
        assert len(sent) == 3
        assert serving.traffic == {"one": 100}

    @pytest.mark.parametrize("status", [0, 503])
    def test_a_lost_poll_is_repeated(self, serving, status):
        serving.azure.fail("GET", "OperationsStatus/", status, after=1)
        succeed(serving.deploy("one"))
        assert serving.traffic == {"one": 100}
        assert len(serving.deployments) == 1


class TestRefusals:
    def test_a_name_that_is_taken(self, serving):
        elsewhere = "/providers/Microsoft.MachineLearningServices/workspaces/other"
        plant(serving.azure, f"{elsewhere}/onlineEndpoints/{NAME}", {"properties": {}})
        texts = (
            ": create endpoint phi3-endpoint: UserError / Conflict",
            "is taken",
            "another name",
        )
        one_line(serving.deploy("one"), *texts)
        assert serving.deployments == {}

    @pytest.mark.parametrize(
        ("path", "step"),
        [
            ("/models/", "create model phi3-finetuned"),
            (NAME, "create endpoint"),
            (DEPLOYMENT, "create deployment d-"),
        ],
    )
    def test_403_is_one_line_and_the_next_run_continues(self, serving, path, step):
        serving.azure.fail("PUT", path, 403, code="AuthorizationFailed", message="You may not.")
        one_line(serving.deploy("one"), step, "You may not.", "Ask the subscription's owner")
        succeed(serving.deploy("one"))
        assert (serving.traffic, serving.models) == ({"one": 100}, ["one"])

    def test_missing_quota(self, serving):
        serving.azure.quota("standardNCADSA100v4Family", 24, 20)
        one_line(serving.deploy("one"), "create deployment d-", "OutOfQuota", "4 left")
        assert (serving.deployments, serving.traffic) == ({}, {})

    def test_a_job_whose_output_has_no_model(self, serving):
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

    def test_a_job_that_does_not_exist(self, phi3, serving):
        one_line(phi3("deploy", "--job", "nothing"), "the job nothing does not exist. Submit one")

    def test_403_where_the_jobs_are_listed(self, phi3, serving):
        serving.azure.fail("GET", "/jobs", 403)
        one_line(phi3("deploy"), "deploy: listing the jobs: ", "Ask the subscription's owner")

    def test_no_completed_job(self, serving, phi3):
        serving.job("phi3-running", "Running")
        serving.job("somebodys")
        one_line(phi3("deploy"), "no fine-tuning job has completed yet. Run `phi3 finetune")

    def test_the_newest_of_several_jobs(self, serving, phi3):
        for name in ("phi3-one", "phi3-two", "other"):
            serving.job(name)
        serving.job("phi3-three", "Failed")
        assert "from phi3-two" in succeed(phi3("deploy", "--dry-run"))

    @pytest.mark.parametrize(
        "model",
        ["Phi-3-mini-4k-instruct", "azureml://registries/azureml/models/Phi-3.5-x/versions/1"],
    )
    def test_the_catalog_and_a_retired_model(self, serving, phi3, model):
        one_line(phi3("finetune", "--catalog", "--model", model), "no longer fine-tunes")
        assert serving.azure.requests == []


class TestTraffic:
    """Beside a live deployment, whose traffic is put back after every failure."""

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

    def test_traffic_that_cannot_be_put_back_is_reported_and_the_next_run_continues(self, live):
        live.azure.fail("POST", "/score", 401, after=1)
        live.azure.fail("PUT", NAME, 403, after=2)  # after the deployment's and that of 10 %
        done = live.deploy("new")
        one_line(done, "the smoke test of")
        assert "the traffic could not be put back" in done.out
        assert live.traffic == {"old": 90, "new": 10}
        succeed(live.deploy("new"))
        assert (live.traffic, list(live.deployments.values())) == ({"new": 100}, ["new"])

    def test_an_endpoint_whose_last_change_failed_keeps_its_traffic(self, live):
        (endpoint,) = live.of("onlineEndpoints")
        endpoint["properties"]["provisioningState"] = "Failed"
        succeed(live.deploy("new", *CANARY))
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
        succeed(live.deploy("new", "--mirror", 20, *CANARY))
        (new,) = live.deployments
        sent = [body["properties"] for body in live.puts]
        assert [endpoint["mirrorTraffic"] for endpoint in sent] == [{new: 20}, {}, {}]
        assert [endpoint["traffic"].get(new, 0) for endpoint in sent] == [0, 10, 100]

    def test_the_old_deployment_may_stay(self, live):
        succeed(live.deploy("new", "--keep-old"))
        assert sorted(live.deployments.values()) == ["new", "old"]
        assert live.traffic == {"new": 100}
        assert "removed old deployments: d-old" in succeed(live.deploy("new"))
        assert list(live.deployments.values()) == ["new"]

    def test_a_live_deployment_that_cannot_be_changed_says_why(self, live):
        """The first error is reported, not that a deployment with traffic cannot be deleted."""
        succeed(live.deploy("new"))
        (deployment,) = live.of("onlineEndpoints/deployments")
        deployment["properties"]["provisioningState"] = "Failed"
        live.azure.fail("PUT", DEPLOYMENT, 400, code="OutOfCapacity", message="There is no more.")
        one_line(live.deploy("new"), "create deployment d-", "There is no more.")
        assert live.traffic == {"new": 100}
