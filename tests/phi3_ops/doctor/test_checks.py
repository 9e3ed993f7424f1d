"""The checks of `phi3 doctor`: what they report, which fix they name, and what they never show."""

from __future__ import annotations

import base64
import inspect
import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
import tomllib

from azure_fixtures import plant
from echo_endpoint import KEY, echo_endpoint
from pages import check_part, table
from phi3_ops import paths
from phi3_ops.doctor import checks
from phi3_ops.doctor.checks import ALL_WAYS, CHECKS, OLDEST_PYTHON, WAYS, CheckContext, python
from phi3_ops.doctor.runner import FAIL, OK, SKIP, WARN
from phi3_ops.flows.content import copy_flow
from phi3_ops.pf.connections import delete_connection

ROOT = Path(__file__).resolve().parents[3]
NAME = "d"  # the connection of the fixture `connected`
SECRET = "kE+y/of=the(endpoint)"
DOWN = "http://127.0.0.1:9/score"


# -- the table -------------------------------------------------------------------------------------


def test_a_check_comes_after_the_checks_that_it_needs():
    earlier = {}
    for check in CHECKS:
        for name in check.needs:
            assert set(check.ways) <= set(earlier[name].ways), (check.name, name)
        earlier[check.name] = check
        assert check.ways and set(check.ways) <= set(WAYS)
        assert check.fix
    assert len(earlier) == len(CHECKS)


def test_the_table_of_the_documentation():
    rows = []
    for check in CHECKS:
        what = inspect.getdoc(getattr(check.run, "func", check.run))
        ways = "all" if check.ways == ALL_WAYS else ", ".join(check.ways)
        rows.append([check.name, what, ways])
    check_part("doctor.md", "checks", table(["check", "what it checks", "ways of use"], rows))


def test_the_ways_of_the_documentation():
    rows = [[f"`{name}`", what] for name, what in WAYS.items()]
    check_part("doctor.md", "ways", table(["way of use", "what it is"], rows))


def test_the_pythons_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=" + ".".join(map(str, OLDEST_PYTHON))


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 9, 1), FAIL), ((3, 10, 0), OK), ((3, 14, 9), OK), ((3, 15, 0), WARN)],
)
def test_python(monkeypatch, version, status):
    monkeypatch.setattr(sys, "version_info", version)
    assert python(CheckContext()).status == status


# -- keyring ---------------------------------------------------------------------------------------


def check_keyring(monkeypatch, ring):
    import keyring

    monkeypatch.setattr(keyring, "get_keyring", lambda: ring)
    return checks.keyring(CheckContext())


class TestKeyring:
    def test_a_keyring_that_stores_nothing(self, monkeypatch):
        from keyring.backends import fail, null

        for module in (fail, null):
            finding = check_keyring(monkeypatch, module.Keyring())
            assert finding.status == FAIL and "does not store anything" in finding.what

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
    def test_a_file_that_other_users_can_read(self, monkeypatch, tmp_path):
        from phi3_ops.pf.keyring_store import OwnerOnlyFileKeyring

        monkeypatch.setenv("PF_HOME_DIRECTORY", str(tmp_path))
        ring = OwnerOnlyFileKeyring()
        ring.set_password("promptflow", "x", "y")
        assert check_keyring(monkeypatch, ring).status == OK
        ring.path.chmod(0o640)
        finding = check_keyring(monkeypatch, ring)
        assert finding.status == FAIL and finding.fix == f"chmod 600 {ring.path}"

    def test_a_variable_that_is_not_json(self, monkeypatch):
        from phi3_ops.pf.keyring_store import OwnerOnlyFileKeyring

        monkeypatch.setenv("PHI3_KEYRING", "very-secret")
        finding = check_keyring(monkeypatch, OwnerOnlyFileKeyring())
        assert finding.status == FAIL and "very-secret" not in finding.what + finding.fix
        assert finding.what == "PHI3_KEYRING is not a JSON object"


# -- connection and endpoint -----------------------------------------------------------------------


class TestEndpoint:
    def test_all_is_well(self, connected, doctor, phi3):
        with echo_endpoint() as server:
            connected(server.url, deployment="blue")
            code, results = doctor("--for", "serve", "local")
            done = phi3("doctor", "--connection", NAME, "--for", "local")
        assert code == 0
        assert results["connection"]["what"].endswith("(auto contract, deployment blue)")
        assert results["endpoint"]["what"].endswith("s, chat contract")
        assert results["python"]["ways"] == ["local", "serve"]
        assert done.code == 0 and done.out.startswith("works now\n  local ")
        assert "needs something first" not in done.out

    def test_no_connection(self, doctor):
        code, results = doctor("--for", "local")
        assert code == 1
        assert results["connection"]["what"] == f"the connection {NAME!r} does not exist"
        assert "phi3 connect" in results["connection"]["fix"]
        assert results["endpoint"]["status"] == SKIP

    def test_a_field_that_is_wrong(self, doctor):
        from phi3_ops.pf.client import pf_client

        client = pf_client()  # must come before the import of its entities
        from promptflow.entities import CustomConnection

        wrong = CustomConnection(
            name=NAME, configs={"endpoint": "<your-url>"}, secrets={"key": "k"}
        )
        client.connections.create_or_update(wrong)
        try:
            code, results = doctor("--for", "local")
        finally:
            delete_connection(NAME)
        assert code == 1
        assert "still the placeholder" in results["connection"]["what"]
        assert results["connection"]["fix"] == "Replace it with the real endpoint."

    @pytest.mark.parametrize(
        ("key", "url", "error"),
        [("wrong-key", None, "AuthenticationError"), (KEY, DOWN, "Unreachable")],
    )
    def test_an_endpoint_that_does_not_answer_is_named(self, connected, doctor, key, url, error):
        with echo_endpoint() as server:
            connected(url or server.url, key)
            code, results = doctor("--for", "batch")
        assert code == 1
        assert error in results["endpoint"]["what"]
        assert results["endpoint"]["fix"]
        assert key not in json.dumps(results)


class _Repeating(BaseHTTPRequestHandler):
    """Refuses every request, with an error that repeats what it received."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = self.server.make_error(
            self.headers["authorization"].removeprefix("Bearer ")
        ).encode()
        self.send_response(400)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def repeating_endpoint(make_error):
    """An endpoint whose error text `make_error` makes from the key that it received."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Repeating) as server:
        server.make_error = make_error
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/score"
        finally:
            server.shutdown()
            thread.join()


class TestSecrets:
    @pytest.mark.parametrize(
        "make_error",
        [
            lambda key: f"you sent {key}, did you?",
            lambda key: f"code={quote(key, safe='')}",
            lambda key: f"Basic {base64.b64encode(key.encode()).decode()}",
            lambda key: json.dumps({"error": {"message": f"authorization: Bearer {key}"}}),
            # The client cuts the text of an error to 500 characters: here within the key.
            *[lambda key, n=n: f"{'x' * (500 - n)}{key}" for n in range(4, len(SECRET), 5)],
        ],
    )
    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_an_endpoint_that_repeats_the_key(self, connected, phi3, make_error, options):
        with repeating_endpoint(make_error) as url:
            connected(url, SECRET)
            done = phi3("doctor", "--connection", NAME, "--for", "local", *options)
        output = "".join((done.out + done.err).split())  # lines are wrapped anywhere
        assert done.code == 1
        assert "BadRequestError" in output
        forms = (SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode())
        for form in forms:
            assert form[:4] not in output

    def test_a_key_of_the_environment(self, connected, phi3, monkeypatch):
        monkeypatch.setenv("MY_OWN_NAME", SECRET)
        with repeating_endpoint(lambda key: f"you sent {key}") as url:
            connected(url, "${env:MY_OWN_NAME}")
            done = phi3("doctor", "--connection", NAME, "--for", "local")
        output = "".join((done.out + done.err).split())  # lines are wrapped anywhere
        assert "yousent" in output and SECRET not in output

    def test_a_key_in_the_url(self, connected, phi3):
        with echo_endpoint() as server:
            connected(f"{server.url}?code=in-the-url")
            done = phi3("doctor", "--connection", NAME, "--for", "local")
        assert done.code == 0 and "in-the-url" not in done.out + done.err


# -- flow lock -------------------------------------------------------------------------------------


def test_the_lock_of_the_flows(doctor, connected, tmp_path):
    folder = copy_flow(paths.FLOWS, tmp_path / "flows")
    words = ("--for", "batch", "--flows", folder)
    with echo_endpoint() as server:
        connected(server.url)
        code, results = doctor(*words)
        assert (code, results["flow lock"]["status"]) == (0, OK)
        (folder / "qa" / "more.txt").write_text("x")
        code, results = doctor(*words)
        assert code == 1 and "qa" in results["flow lock"]["what"]
        assert "Raise `tags.version`" in results["flow lock"]["fix"]
        (folder / "flows.lock.json").unlink()
        code, results = doctor(*words)
        assert code == 1 and results["flow lock"]["fix"] == "phi3 flow lock"


# -- Azure -----------------------------------------------------------------------------------------


class TestAzure:
    def test_all_is_well_and_nothing_is_written(self, provisioned, doctor):
        plant(provisioned, "connections/phi3", {"properties": CUSTOM_KEYS})
        code, results = doctor("--for", "azure", "foundry")
        assert code == 0, results
        assert results["workspace"]["what"] == "ws-one, eastus2"
        assert provisioned.writes() == []

    def test_no_configuration(self, azure, doctor, monkeypatch):
        monkeypatch.delenv("AZUREML_WORKSPACE_NAME")
        code, results = doctor("--for", "azure")
        assert code == 1
        assert results["configuration"]["what"].startswith("phi3.yaml: `azure.workspace`")
        assert results["az login"]["status"] == OK
        assert results["workspace"]["status"] == results["quota"]["status"] == SKIP

    def test_not_signed_in(self, azure, doctor):
        body = {"error": "invalid_client", "error_description": f"AADSTS7000222: {azure.secret}"}
        azure.fail("POST", "/oauth2/v2.0/token", 401, times=None, body=body)
        code, results = doctor("--for", "azure")
        assert code == 1
        assert results["az login"]["fix"] == "Run `az login`."
        assert azure.secret not in json.dumps(results)
        assert results["workspace"]["status"] == SKIP

    def test_no_workspace(self, azure, doctor):
        code, results = doctor("--for", "azure")
        assert code == 1
        assert results["workspace"]["what"] == "the workspace ws-one does not exist in rg"
        assert results["workspace"]["fix"] == "phi3 provision"

    def test_another_region(self, provisioned, doctor, monkeypatch):
        monkeypatch.setenv("AZURE_LOCATION", "westus3")
        _, results = doctor("--for", "foundry")
        assert results["workspace"]["status"] == WARN
        assert "eastus2" in results["workspace"]["what"]

    def test_quota(self, provisioned, doctor):
        provisioned.quota("standardNCADSA100v4Family", 24, 10)
        code, results = doctor("--for", "azure")
        assert code == 1
        assert "10 cores of standardNCADSA100v4Family are missing" in results["quota"]["what"]
        assert "Azure Machine Learning > Quota" in results["quota"]["fix"]

    @pytest.mark.parametrize(
        ("section", "check", "status", "message"),
        [
            (
                "endpoint: {size: Standard_NC6s_v3}",
                "machine sizes",
                FAIL,
                "was retired on 2025-09-30",
            ),
            ("endpoint: {size: Standard_E4s_v3}", "machine sizes", WARN, "new subscriptions"),
            (
                "finetune: {model: microsoft/Phi-3.5-mini-instruct}",
                "model",
                OK,
                "not with --catalog",
            ),
            (
                "finetune: {model: azureml://registries/azureml/models/Phi-3-mini-4k-instruct}",
                "model",
                FAIL,
                "was retired from the catalog on 2025-08-30",
            ),
        ],
    )
    def test_retired_sizes_and_models(
        self, provisioned, doctor, tmp_path, section, check, status, message
    ):
        (tmp_path / "phi3.yaml").write_text(section)
        _, results = doctor("--for", "azure")
        assert results[check]["status"] == status
        assert message in results[check]["what"]
        assert bool(results[check]["fix"]) == (status != OK)

    def test_a_connection_that_flows_cannot_read(self, provisioned, doctor):
        code, results = doctor("--for", "foundry")
        assert code == 1
        assert results["workspace's connection"]["fix"] == "phi3 connect --azure"
        wrong = {**CUSTOM_KEYS, "authType": "ApiKey"}
        plant(provisioned, "connections/phi3", {"properties": wrong})
        code, results = doctor("--for", "foundry")
        assert code == 1
        assert "CustomKeys with ApiKey" in results["workspace's connection"]["what"]


CUSTOM_KEYS = {"category": "CustomKeys", "authType": "CustomKeys", "target": "x", "metadata": {}}
