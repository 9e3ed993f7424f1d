"""The OpenAPI document against the golden exchanges, and against what the scoring script takes."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import requests

from pages import DOCS, check_part, table
from phi3_ops.endpoint.front import MAX_BODY
from phi3_ops.endpoint.http_server import GRACE_S
from tiny_endpoint import ThreadContainer, running, stand_in

GOLDEN = sorted((Path(__file__).resolve().parents[2] / "golden" / "endpoint").glob("*.json"))


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    with running([ThreadContainer(stand_in(tmp_path_factory.mktemp("api")))]) as url:
        document = requests.get(f"{url}/swagger.json").json()
        assert requests.get(f"{url}/openapi.json").json() == document
    return document


def fits(document, schema, value):
    full_schema = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(full_schema)
    return not list(jsonschema.Draft202012Validator(full_schema).iter_errors(value))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_it_describes_the_golden_exchanges(document, path):
    golden = json.loads(path.read_text(encoding="utf-8"))
    request, answer = golden["request"], golden["response"]
    operation = document["paths"][request["path"]][request["method"].lower()]
    response = operation["responses"][str(answer["status"])]
    if "events" in answer:
        assert "text/event-stream" in response["content"]
    else:
        kind = "text/plain" if isinstance(answer["body"], str) else "application/json"
        assert fits(document, response["content"][kind]["schema"], answer["body"])
    if answer["status"] == 200 and "body" in request:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert fits(document, schema, request["body"])


@pytest.mark.parametrize(
    "stem",
    [
        "error-shape",
        "error-parameter",
        "error-parameter-chat",
        "error-unknown",
        "error-unknown-chat",
        "error-response-format-chat",
        "error-tool-chat",
    ],
)
def test_it_tells_a_wrong_request_from_a_right_one(document, stem):
    request = json.loads(next(p for p in GOLDEN if p.stem == stem).read_text())["request"]
    operation = document["paths"][request["path"]]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert not fits(document, schema, request["body"])


def test_it_names_the_parameters_that_the_scoring_script_takes(document):
    from phi3_ops import paths

    source = (paths.SERVING / "parameters.py").read_text(encoding="utf-8")
    table = source[source.index("PARAMETERS = (") : source.index(")  # fmt: skip")]
    names = set(re.findall(r'Parameter\(\s*"(\w+)"', table))
    names |= set(re.findall(r'"(\w+)"', " ".join(re.findall(r"aliases=\(([^)]*)\)", table))))
    ignored = source[source.index("WITHOUT_EFFECT = (") : source.index("NOT_SUPPORTED = (")]
    names |= set(re.findall(r'"(\w+)"', ignored))
    assert set(document["components"]["schemas"]["Parameters"]["properties"]) == names


def max_texts(document):
    """The number of texts that one request may have, in the document and in the scoring script."""
    from phi3_ops import paths

    source = (paths.SERVING / "payloads.py").read_text(encoding="utf-8")
    shapes = document["components"]["schemas"]["ListRequest"]["properties"]["input_data"]["anyOf"]
    documented = shapes[1]["maxItems"]
    assert f"MAX_TEXTS = {documented}\n" in source
    return documented


def test_every_reference_leads_somewhere(document):
    for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(document)):
        assert name in document["components"]["schemas"]


def test_the_statuses_of_score_are_documented(document):
    responses = document["paths"]["/score"]["post"]["responses"]
    rows = [[status, response["description"]] for status, response in responses.items()]
    check_part("endpoint.md", "statuses", table(["status", "when"], rows))


def test_the_defaults_are_documented(tmp_path, document):
    page = (DOCS / "endpoint.md").read_text(encoding="utf-8")
    deployment = stand_in(tmp_path)
    assert f"| {deployment.request_timeout_ms:,}, " in page
    assert f"| {deployment.max_concurrent_requests_per_instance}; N are" in page
    assert f"| {MAX_BODY // 2**20} MiB |" in page
    assert f"| texts of one request | {max_texts(document)} |" in page
    assert f"up to {GRACE_S} seconds" in page
