"""`phi3 finetune` with the real clients: interrupted runs, failed jobs, missing permissions."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

import pytest

from azure_fixtures import one_line, succeed


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
        succeed(finetune())
        assert "nothing to change" in succeed(finetune())
        for kind in ("jobs", "environments/versions"):
            assert len(serving.of(kind)) == 1, kind

    def test_a_failed_job_is_reported_and_submitted_again(self, serving, finetune):
        serving.azure.fail_job(message="The node was preempted.")
        one_line(finetune("--follow"), "the job phi3-", "failed", "az ml job stream")
        serving.azure.fail_job()
        assert re.search(r"job phi3-\w{12}-2\n", succeed(finetune()))
        assert len(serving.of("jobs")) == 2

    def test_ctrl_c_while_following_does_not_touch_the_job(
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

    def test_403_is_one_line_and_the_next_run_continues(self, serving, finetune):
        serving.azure.fail("PUT", "/jobs/", 403, code="AuthorizationFailed", message="You may not.")
        one_line(finetune(), "submit job phi3-", "You may not.", "Ask the subscription's owner")
        serving.azure.fail_job()
        succeed(finetune())
        assert len(serving.of("jobs")) == 1
