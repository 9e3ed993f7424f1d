"""The fake's answers and the product's requests, compared with recorded and documented forms.

`tests/golden/azure/recorded` holds names of fields and headers, never values. Each file names its source:
recordings that Azure's SDK team has published, or a page of Microsoft's documentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from azure_fixtures import GROUP, WORKSPACE, succeed

FORMS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).parents[1].glob("golden/azure/recorded/*.json"))
}
# Answers that a test in this file provokes in its own Azure.
REFUSALS = {"policy-denial", "provider-not-registered", "unknown-principal"}
SPEEDUP = "retry-after-ms"  # the fake's only header of its own
DENIED = "microsoft.machinelearningservices/workspaces/onlineendpoints"


def fields(value: Any, prefix: str = "") -> Iterator[str]:
    """Yield the path of each field in a document; `[]` stands for the items of a list."""
    if isinstance(value, list):
        for item in value:
            yield from fields(item, f"{prefix}[]/")
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield prefix + name
        yield from fields(inner, f"{prefix}{name}/")


def without_free_fields(paths: set[str], known: list[str]) -> set[str]:
    """Return the paths without those below a field whose names are the user's (`tags/*`)."""
    free = tuple(path.removesuffix("*") for path in known if path.endswith("/*"))
    return {path for path in paths if not path.startswith(free)}


def known_fields(known: list[str]) -> set[str]:
    """Return the paths of a form, without those of lists and of free fields."""
    return without_free_fields({path for path in known if not path.endswith("[]")}, known)


def ask(azure: Any, method: str, path: str, body: Any = None) -> requests.Response:
    """Send a request below the workspace with its own token, past the SDK."""
    from azure.identity import EnvironmentCredential

    group = f"/subscriptions/{azure.subscription}/resourceGroups/{GROUP}"
    token = EnvironmentCredential().get_token("https://management.azure.com/.default").token
    return requests.request(
        method,
        f"https://management.azure.com{group}/providers/Microsoft.MachineLearningServices{path}",
        headers={"Authorization": f"Bearer {token}"},
        json=body,
        timeout=30,
    )


@pytest.fixture
def journey(serving, phi3, tmp_path):
    """An Azure after a cluster, jobs, a deployment and a connection were created."""
    azure = serving.azure
    for key in [key for key in azure.resources if "/computes/" in key]:
        del azure.resources[key]
    succeed(phi3("provision", "--yes"))
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text('{"messages": []}\n')
    files = "--train-file", tmp_path / "train.jsonl", "--eval-file", tmp_path / "test.jsonl"
    for words in ((), ("--catalog",)):
        azure.fail_job()
        succeed(phi3("finetune", *files, *words))
    (tmp_path / "phi3.yaml").write_text("endpoint: {variant: score}")
    succeed(serving.deploy("one"))
    succeed(phi3("connect", "--azure"))
    succeed(phi3("connect", "--azure", "--rotate"))
    api = "?api-version=2024-04-01"
    assert ask(azure, "GET", f"/workspaces/none{api}").status_code == 404
    assert ask(azure, "GET", f"/workspaces/{WORKSPACE}/connections/none{api}").status_code == 404
    code = next(
        document["id"]
        for key, document in azure.resources.items()
        if "/codes/" in key and "/versions/" in key
    )
    code = code.split("/Microsoft.MachineLearningServices")[1]
    assert ask(azure, "GET", f"{code}?api-version=2023-04-01").status_code == 200
    endpoint = f"/workspaces/{WORKSPACE}/onlineEndpoints/other?api-version=2024-10-01"
    assert (
        ask(azure, "PUT", endpoint, {"properties": {"traffic": {"none": 100}}}).status_code == 400
    )
    return azure


def matching(azure: Any, form: dict[str, Any]) -> tuple[Any, Any]:
    """Return the last exchange that a form describes."""
    pattern = re.compile(rf".*{form['path']}", re.IGNORECASE)
    exchanges = [
        (request, answer)
        for request, answer in azure.exchanges
        if request.method == form["method"]
        and pattern.fullmatch(request.path)
        and answer.status == form["answer"]["status"]
        and job_type(request) == form.get("job_type", job_type(request))
    ]
    assert exchanges, f"no exchange for {form['method']} {form['path']}"
    return exchanges[-1]


def job_type(request: Any) -> str:
    properties = (request.body or {}).get("properties") or {}
    return str(properties.get("jobType", ""))


def differences(azure: Any, form: dict[str, Any]) -> list[str]:
    """Return what differs between a form and the exchange that it describes."""
    request, answer = matching(azure, form)
    lines = []
    sent = set(fields(request.body))
    recorded = form.get("request", {})
    if "fields" in recorded:
        known = [*recorded["fields"], *recorded.get("documented_fields", [])]
        # A field that Azure answers with is also a field that it accepts.
        accepted = known_fields(known) | known_fields(form["answer"].get("fields", []))
        unknown = without_free_fields(sent, known) - accepted
        lines += [f"sends an unknown field {path}" for path in sorted(unknown)]
    for name in recorded.get("headers", []):
        if name.lower() not in request.headers:
            lines.append(f"does not send the header {name}")
    known = form["answer"].get("fields")
    if known is not None:
        answered = without_free_fields(set(fields(answer.body)), known)
        lines += [f"the fake lacks {path}" for path in sorted(known_fields(known) - answered)]
        invented = answered - known_fields(known) - sent
        lines += [f"the fake invents {path}" for path in sorted(invented)]
    if "headers" in form["answer"]:
        names = {name.lower() for name in answer.headers} - {SPEEDUP}
        lines += [
            f"header {name}"
            for name in sorted(names ^ {name.lower() for name in form["answer"]["headers"]})
        ]
    if "signed_query" in form:
        query = parse_qs(urlsplit(answer.headers["Azure-AsyncOperation"]).query)
        lines += [] if list(query) == form["signed_query"] else [f"query {list(query)}"]
    if types := form["answer"].get("types_of_additional_info"):
        answered_types = sorted(entry["type"] for entry in answer.body["error"]["additionalInfo"])
        lines += [] if answered_types == types else [f"additionalInfo {answered_types}"]
    return lines


def test_the_forms_of_requests_and_answers(journey):
    lines = {name: differences(journey, FORMS[name]) for name in FORMS if name not in REFUSALS}
    assert {name: differing for name, differing in lines.items() if differing} == {}


def test_every_form_names_its_source():
    assert set(FORMS) > REFUSALS
    for form in FORMS.values():
        assert form["known"] in ("recorded", "documented")
        assert form["source"]


def test_the_refusals_of_new_subscriptions_policies_and_directories(azure, phi3, monkeypatch):
    from phi3_ops.azure import providers, roles

    monkeypatch.setattr(providers, "PROVIDERS", ())
    monkeypatch.setattr(roles, "SPREAD_POLL_S", 0.0)
    azure.unregistered = {"microsoft.containerregistry"}
    assert phi3("provision", "--create-group", "--yes").code == 1
    azure.unregistered = set()
    azure.directory_lag = 2
    succeed(phi3("provision", "--create-group", "--yes"))
    azure.denied = {DENIED: "No endpoints"}
    path = f"/workspaces/{WORKSPACE}/onlineEndpoints/other?api-version=2024-10-01"
    assert ask(azure, "PUT", path, {"properties": {}}).status_code == 403
    lines = {name: differences(azure, FORMS[name]) for name in sorted(REFUSALS)}
    assert {name: differing for name, differing in lines.items() if differing} == {}
