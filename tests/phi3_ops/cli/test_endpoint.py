"""The arguments of `phi3 endpoint`."""

import argparse

import pytest

from phi3_ops import endpoint as endpoint_room
from phi3_ops.cli import endpoint as command
from phi3_ops.cli import main
from phi3_ops.endpoint.server import EndpointError
from phi3_ops.errors import OpsError
from phi3_ops.files.ownership import read_marker
from phi3_ops.pf.connections import (
    connection_key,
    connection_url,
    delete_connection,
    save_connection,
)
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


@pytest.mark.parametrize("words", [("--model", "tiny"), ("--deployment", "blue=tiny")])
def test_the_tiny_model_is_served_after_a_training_only(words):
    with pytest.raises(OpsError, match="'tiny' is made from the training rows during a training"):
        deployments(*words)


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
            "blue=a has no name, model or share",
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


# -- the connection ----------------------------------------------------------------------------------

AZURE = "https://prod.eastus2.inference.ml.azure.com/score"
URL = "http://127.0.0.1:9"
RUNTIME = "transformers, float32, 2 threads, because OpenVINO cannot serve this model: no room"


@pytest.fixture
def keys(monkeypatch, tmp_path):
    """The keys of the endpoints that would have been served; each is ready at once."""
    used = []

    def serve(deployments, *, key, ready, **options):
        used.append(key)
        ready(URL, {deployment.name: RUNTIME for deployment in deployments})

    monkeypatch.setattr(endpoint_room, "serve_models", serve)
    monkeypatch.chdir(tmp_path)
    yield used
    delete_connection("e")


def serve(*words):
    return main(["endpoint", "--model", "m", "--workdir", "work", "--connection", "e", *words])


@pytest.mark.finding(
    2,
    "`phi3 endpoint` with a connection that points to Azure",
    "the connection is not replaced without `--replace`, and its key is not used",
)
def test_a_connection_to_another_machine_is_not_replaced_and_its_key_is_not_used(keys, capsys):
    save_connection("e", {"endpoint": AZURE}, "production")
    assert serve() == 1
    assert capsys.readouterr().err == (
        "phi3 endpoint: the connection 'e' points to another endpoint "
        "(prod.eastus2.inference.ml.azure.com), and would be replaced. Give --replace, or another "
        "--connection.\n"
    )
    assert not keys and connection_key("e") == "production" and connection_url("e") == AZURE
    assert serve("--replace") == 0
    assert keys != ["production"] and [connection_key("e")] == keys
    assert connection_url("e") == f"{URL}/score"


def test_the_first_line_says_what_runs_the_model(keys, capsys):
    assert serve() == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"serving m with {RUNTIME}"
    assert second == f"the endpoint answers at {URL}/score"


def test_each_deployment_has_a_line_that_says_what_runs_its_model(keys, capsys):
    words = ("--deployment", "blue=a:90", "--deployment", "green=b:10")
    assert main(["endpoint", *words, "--workdir", "work", "--connection", "e"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"deployment blue, 90 % of the traffic: serving a with {RUNTIME}",
        f"deployment green, 10 % of the traffic: serving b with {RUNTIME}",
    ]


def test_each_start_has_a_new_key(keys):
    assert serve() == serve() == 0
    first, second = keys
    assert first != second == connection_key("e") and len(second) > 40


def test_a_connection_that_changes_while_the_model_is_loaded_is_not_replaced(keys, monkeypatch):
    def serve_later(deployments, *, ready, **options):
        save_connection("e", {"endpoint": AZURE}, "production")
        ready(URL, {"blue": RUNTIME})

    monkeypatch.setattr(endpoint_room, "serve_models", serve_later)
    assert serve() == 1
    assert connection_key("e") == "production"


def test_the_key_of_a_connection_is_not_needed_without_one(keys, monkeypatch):
    save_connection("e", {"endpoint": AZURE}, "production")
    monkeypatch.setenv("PHI3_ENDPOINT_KEY", KEY)
    assert serve("--no-connect") == 0
    assert keys == [KEY] and connection_key("e") == "production"


def test_the_workdir_knows_its_connection(keys, tmp_path):
    assert serve() == 0
    assert read_marker(tmp_path / "work").connections == {"e": f"{URL}/score"}
