"""A batch is submitted once, found again by its content, and fetched when it has ended."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from phi3_ops.azure.plan import Plan
from phi3_ops.errors import OpsError
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.remote_runs import submission
from phi3_ops.remote_runs.outputs import Download
from phi3_ops.remote_runs.request import BatchRequest
from phi3_ops.remote_runs.submission import BATCH_TAG, BatchSubmission, batch_digest
from phi3_ops.runs.properties import RunProperties


class Submission(BatchSubmission):
    """A submission to a service that is a dict: name -> status."""

    kind, prefix, option = "batch", f"mine-{id(object())}-", "--on-mine"

    def __init__(self, cloud, request):
        super().__init__(cloud, request)
        self.service, self.downloads = {}, 0

    def plan(self):
        return Plan("run", [])

    def find(self, name):
        if name not in self.service:
            return None
        return SimpleNamespace(status=self.service[name], tags={BATCH_TAG: self.content_digest})

    def follow(self):
        return True

    def download(self, name, folder):
        self.downloads += 1
        return Download({0: {"answer": "1"}})

    def token_counts(self, folder):
        return {"total_tokens": 18}


@pytest.fixture
def made(cloud, request_for, files, monkeypatch):
    monkeypatch.setattr(submission, "FETCHED_FOLDER", files / "batches")
    metadata = {"endpoint": "https://host/score?key=secret", "contract": "chat"}
    connection = {"properties": {"metadata": metadata}}
    monkeypatch.setattr(Submission, "_connection", lambda self, name: connection)
    return Submission(cloud, request_for(BatchRequest))


def test_an_empty_data_file_is_refused(cloud, request_for, files):
    (files / "data.jsonl").write_text("")
    with pytest.raises(OpsError, match="data.jsonl has no lines"):
        Submission(cloud, request_for(BatchRequest))


def test_the_name_follows_the_content_and_the_failed_attempts(made):
    first = f"{made.prefix}{made.digest}"
    assert not made.exists() and made.name == first
    made.service[first] = "Failed"
    assert not made.exists() and made.name == f"{first}-2"
    made.service[made.name] = "Running"
    assert made.exists() and made.name == f"{first}-2"


def test_the_status_is_that_of_the_same_content(made):
    made.service[made.name] = "Completed"
    assert made.status(made.name) == "Completed" and made.is_completed(made.name)
    with pytest.raises(OpsError, match="the batch other does not exist.*phi3 run --on-mine"):
        made.status("other")
    made.find = lambda name: SimpleNamespace(status="Completed", tags={BATCH_TAG: "another"})
    with pytest.raises(OpsError, match="ran another flow or other data"):
        made.status(made.name)


@pytest.mark.parametrize("status", ["Completed", "Failed"])
def test_a_batch_that_has_ended_is_fetched_once(made, status):
    made.prefix = f"{made.prefix}{status}-"
    made.service[made.name] = status
    name = next(iter(made.service))
    batch = made.fetch(name)
    assert (batch.name, batch.lines, batch.answers) == (name, 1, {0: {"answer": "1"}})
    assert made.fetch(name) == batch and made.downloads == 1
    properties = RunProperties.from_properties(find_stored_run(name).properties)
    assert properties.endpoints["answer"].endpoint == "host/score"
    assert properties.token_counts == {"total_tokens": 18}


def test_a_batch_that_runs_is_not_fetched(made):
    made.service[made.name] = "Running"
    with pytest.raises(OpsError, match="is Running.*--follow"):
        made.fetch(made.name)
    assert made.downloads == 0


def test_a_missing_connection_is_named(made, monkeypatch):
    made.check_connections()
    monkeypatch.setattr(Submission, "_connection", lambda self, name: None)
    with pytest.raises(OpsError, match="the workspace work has no connection 'phi3'"):
        made.check_connections()


def test_a_digest_depends_on_every_part_and_not_on_the_order_of_keys():
    assert batch_digest("a", {"x": 1, "y": 2}) == batch_digest("a", {"y": 2, "x": 1})
    assert len({batch_digest(*parts) for parts in (("a",), ("b",), ("a", "b"), (["a"],))}) == 4
    assert batch_digest("\ud800")  # half a surrogate pair, as JSON may contain
