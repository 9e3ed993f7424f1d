"""What a batch runs, and how its lines are spread over the nodes of a cluster."""

from __future__ import annotations

import pytest

from phi3_ops.remote_runs.request import (
    LINE_TIMEOUT_S,
    MAX_TIMEOUT_S,
    BatchRequest,
    ClusterRequest,
)


@pytest.mark.parametrize(
    ("in_flight", "instances", "processes", "threads"),
    [(16, 1, 4, 4), (16, 2, 4, 2), (5, 2, 3, 1), (6, 1, 3, 2), (7, 1, 1, 7), (1, 4, 1, 1)],
)
def test_the_lines_in_flight_are_shared_by_nodes_and_processes(
    request_for, in_flight, instances, processes, threads
):
    request = request_for(ClusterRequest, in_flight=in_flight, instances=instances)
    assert request.threads == threads
    settings = request.settings()
    assert settings["max_concurrency_per_instance"] == processes
    assert settings["instance_count"] == instances


@pytest.mark.parametrize(
    ("size", "timeout"), [(1, LINE_TIMEOUT_S), (3, 3 * LINE_TIMEOUT_S), (10**6, MAX_TIMEOUT_S)]
)
def test_a_mini_batch_has_the_time_of_its_lines(request_for, size, timeout):
    settings = request_for(ClusterRequest, mini_batch_size=size, retries=5).settings()
    assert settings["retry_settings"] == {"max_retries": 5, "timeout": timeout}
    assert settings["mini_batch_size"] == "1"  # file


def test_no_failure_is_ignored(request_for):
    settings = request_for(ClusterRequest).settings()
    assert settings["error_threshold"] == settings["mini_batch_error_threshold"] == 0


def test_connections_are_the_flows_unless_others_are_set(request_for):
    assert request_for(BatchRequest).connection_names == {"answer": "phi3"}
    others = {"answer": {"connection": "other"}}
    assert request_for(BatchRequest, connections=others).connection_names == {"answer": "other"}


def test_inputs_are_columns_or_constants(request_for):
    columns = {"a": "${data.question}", "b": "constant", "c": "${data.missing}"}
    request = request_for(BatchRequest, columns=columns)
    assert request.inputs_of({"question": "one"}) == {"a": "one", "b": "constant", "c": None}
