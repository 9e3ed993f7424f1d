"""The options of `phi3 run` on Azure, and the submissions that they make."""

from __future__ import annotations

import argparse

import pytest

from phi3_ops import paths
from phi3_ops.azure.cloud import Cloud
from phi3_ops.azure.config import Config
from phi3_ops.cli import run_azure
from phi3_ops.cli.run import arguments
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.remote_runs.cluster import ClusterSubmission
from phi3_ops.remote_runs.foundry import FoundrySubmission
from phi3_ops.remote_runs.request import ClusterRequest

COLUMNS = {"input_data": "${data.question}"}


@pytest.fixture
def parse(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"question": "one"}\n')
    parser = argparse.ArgumentParser()
    arguments(parser)
    return lambda *words: parser.parse_args(["--flow", "qa", "--data", str(data), *words])


def submission(args):
    workspace = {"subscription_id": "0" * 36, "resource_group": "rg", "workspace": "work"}
    cloud = Cloud(Config.model_validate({"azure": workspace}), credential=object())
    flow = FlowDefinition.read(paths.FLOWS / "qa")
    return run_azure._submission(args, cloud, flow, COLUMNS, "a title")


def test_the_defaults_of_a_cluster_are_those_of_the_request(parse):
    made = submission(parse("--on-azure"))
    assert isinstance(made, ClusterSubmission)
    assert made.request == ClusterRequest(
        made.request.flow, made.request.data, COLUMNS, "a title", connections={}, in_flight=16
    )


def test_the_options_of_a_cluster_reach_the_request(parse):
    words = ("--compute", "cpu", "--instances", "2", "--mini-batch-size", "3", "--retries", "0")
    request = submission(parse("--on-azure", "--in-flight", "8", *words)).request
    assert (request.compute, request.instances, request.mini_batch_size, request.retries) == (
        "cpu",
        2,
        3,
        0,
    )
    assert request.in_flight == 8


def test_a_connection_replaces_that_of_every_node(parse):
    request = submission(parse("--on-azure", "--connection", "other")).request
    assert request.connection_names == {"answer": "other"}


@pytest.mark.parametrize(
    ("words", "is_foundry"),
    [
        (["--on-azure"], False),
        (["--on-foundry"], True),
        (["--fetch", "foundry-1"], True),
        (["--fetch", "batch-1"], False),
        (["--on-azure", "--fetch", "foundry-1"], False),
    ],
)
def test_the_name_of_a_fetched_batch_says_what_it_is(parse, words, is_foundry):
    args = parse(*words)
    assert run_azure.is_requested(args) and run_azure.misuse(args) is None
    assert isinstance(submission(args), FoundrySubmission) is is_foundry


def test_a_batch_on_this_machine_is_not_one_on_azure(parse):
    assert not run_azure.is_requested(parse())
    assert run_azure.misuse(parse()) is None


@pytest.mark.parametrize(
    ("text", "message"), [("-1", "-1 is below 0"), ("x", "x is not an integer")]
)
def test_a_number_of_retries_that_is_not_valid_is_explained(text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        run_azure.retry_count(text)
    assert run_azure.retry_count("0") == 0
