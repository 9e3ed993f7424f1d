"""Jobs: the name of the next attempt, following, and requiring a completed one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from offline_cloud import missing, offline_cloud
from phi3_ops.azure import jobs
from phi3_ops.azure.jobs import ENDED_BADLY, follow_job, newest_attempt, require_completed
from phi3_ops.errors import OpsError


class TestNewestAttempt:
    def attempt(self, **statuses):
        jobs = {
            name.replace("_", "-"): SimpleNamespace(status=status)
            for name, status in statuses.items()
        }
        name, job = newest_attempt("phi3", "job", jobs.get)
        return name, job and job.status

    def test_nothing_was_submitted(self):
        assert self.attempt() == ("phi3", None)

    @pytest.mark.parametrize("status", ["Queued", "Running", "Completed"])
    def test_a_job_that_has_not_failed(self, status):
        assert self.attempt(phi3=status) == ("phi3", status)

    @pytest.mark.parametrize("status", ENDED_BADLY)
    def test_a_failed_job_is_followed_by_another(self, status):
        assert self.attempt(phi3=status) == ("phi3-2", None)
        assert self.attempt(phi3=status, phi3_2=status) == ("phi3-3", None)
        assert self.attempt(phi3=status, phi3_2="Running") == ("phi3-2", "Running")

    def test_there_is_a_limit(self, monkeypatch):
        monkeypatch.setattr(jobs, "MOST_TRIES", 3)
        names = []

        def find(name):
            names.append(name)
            return SimpleNamespace(status="Failed")

        with pytest.raises(OpsError, match="the job phi3 failed 3 times. Look at its logs"):
            newest_attempt("phi3", "job", find)
        assert names == ["phi3", "phi3-2", "phi3-3"]


def cloud_with(status=None, stream=lambda name: None):
    get = (lambda name: SimpleNamespace(name=name, status=status)) if status else missing
    return offline_cloud({"ml": SimpleNamespace(jobs=SimpleNamespace(get=get, stream=stream))})


class TestRequireCompleted:
    def test_a_completed_job(self):
        assert require_completed(cloud_with("Completed"), "j").name == "j"

    def test_a_job_that_does_not_exist(self):
        with pytest.raises(OpsError, match="the job j does not exist. Submit one with"):
            require_completed(cloud_with(), "j")

    @pytest.mark.parametrize("status", ["Running", "Failed"])
    def test_a_job_that_has_not_completed(self, status):
        what = f"the job j is {status}, not Completed. See its logs: az ml job stream --name j"
        with pytest.raises(OpsError, match=what):
            require_completed(cloud_with(status), "j")


class TestFollow:
    def job_exception(self, cause=None):
        from azure.ai.ml.exceptions import JobException

        def stream(name):
            raise JobException(message="failed", no_personal_data_message="failed") from cause

        return stream

    def test_to_its_end(self):
        followed = []
        follow_job(cloud_with("Completed", followed.append), "j")
        assert followed == ["j"]

    def test_a_job_that_was_canceled_meanwhile(self):
        with pytest.raises(OpsError, match="the job j is Canceled"):
            follow_job(cloud_with("Canceled"), "j")

    def test_a_failure_names_the_logs(self):
        with pytest.raises(OpsError, match="the job j failed. See its logs: az ml job stream"):
            follow_job(cloud_with("Failed", self.job_exception()), "j")

    def test_ctrl_c_stays_an_interrupt(self):
        with pytest.raises(KeyboardInterrupt):
            follow_job(cloud_with("Running", self.job_exception(KeyboardInterrupt())), "j")
