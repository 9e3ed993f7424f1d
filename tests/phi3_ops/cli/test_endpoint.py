"""The arguments of `phi3 endpoint`."""

import argparse

import pytest

from phi3_ops.cli import endpoint as command
from phi3_ops.endpoint.server import EndpointError
from phi3_ops.errors import OpsError
from processes import phi3
from tiny_endpoint import KEY


def deployments(*words):
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return command._deployments(parser.parse_args([str(word) for word in words]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), [("blue", ".phi3/model/model", 100)]),
        (("--model", "a"), [("blue", "a", 100)]),
        (("--deployment", "green=a/b"), [("green", "a/b", 100)]),
        (
            ("--deployment", "blue=C:/a:90", "--deployment", "green=b=2:10"),
            [("blue", "C:/a", 90), ("green", "b=2", 10)],
        ),
    ],
)
def test_deployments(words, expected):
    actual = [(each.name, str(each.model), each.weight) for each in deployments(*words)]
    assert actual == expected


def test_limits_hold_for_every_deployment():
    limits = ("--request-timeout-ms", 500, "--max-concurrent-requests", 3)
    for each in deployments("--deployment", "blue=a:90", "--deployment", "green=b:10", *limits):
        assert each.request_timeout_ms == 500
        assert each.max_concurrent_requests_per_instance == 3


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (
            ("--model", "a", "--deployment", "blue=a"),
            OpsError,
            "--model and --deployment exclude each other",
        ),
        (("--deployment", "blue"), OpsError, "for example blue=models/a:90"),
        (
            ("--deployment", "blue=a", "--deployment", "green=b:5"),
            OpsError,
            "blue=a has no name, folder or share",
        ),
        (("--deployment", "b=a"), EndpointError, "'b' is not a valid name of a deployment"),
        (("--request-timeout-ms", 0), EndpointError, "must be 1 to 180000, not 0"),
    ],
)
def test_wrong_words_are_errors(words, error, message):
    with pytest.raises(error, match=message):
        deployments(*words)


def test_an_error_is_one_line_and_leaves_nothing(tmp_path):
    words = ("--deployment", "blue=a:60", "--deployment", "green=b:60", "--no-connect")
    done = phi3("endpoint", *words, "--workdir", tmp_path, env={"PHI3_ENDPOINT_KEY": KEY})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "phi3 endpoint: the traffic of the deployments is 120 % in total, not 100 % (or 0 %)\n"
    )
    assert list(tmp_path.iterdir()) == []
