"""A fake Azure on loopback, in which the unmodified clients and scripts run.

    from fake_azure import FakeAzure     # tests/support is on the path, see pyproject.toml

    with FakeAzure(tmp_path) as azure:   # about 2 s
        azure.create_group("rg")         # or let the product create it
        run(["phi3", "provision"], env=os.environ | azure.environment())
        assert not azure.refused_hosts   # nothing else was called
        assert [(w.method, w.path) for w in azure.writes()] == []

In the same process: `os.environ.update(azure.environment())` before azure.ai.ml is imported (it reads
its polling interval then). It needs Azurite: `npm ci --prefix tests/fake_azure`, Node 20 or later.

State:    azure.resources (lower-cased path: document), azure.requests, azure.writes(), azure.scored
          (deployment: requests that reached it), azure.storage.names(container, prefix) where the
          container is azureml-blobstore-WORKSPACE or azureml-WORKSPACE; azure.reset() empties all
Quota:    azure.quota("standardNCADSA100v4Family", limit=24, used=24)
Faults:   azure.fail("PUT", "/onlineEndpoints/", 429, times=2)     any request, by count; status 0
                                                                   breaks the connection
          azure.fail("GET", "OperationsStatus", 503)               a lost poll
          azure.fail_operation("/computes/gpu", "QuotaExceeded")   accepted, and ends as failed
          azure.fail_job(), azure.fail_deployment("/deployments/green")
          azure.polls = 5                                          slower operations
          azure.on_write(callback)                                 after each write, before its answer
Images:   azure.stand_ins["mlflow"] = folder_with_score_py         what a deployment without a scoring
                                                                   script runs, by image name
Jobs run their command with this Python; deployments run their score.py (see jobs.py, endpoints.py).
What is documented, read in the SDK or invented is said at the top of each module.
"""

from .cloud import FakeAzure as FakeAzure
